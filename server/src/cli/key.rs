//! `pulse key rotate`: every secret under a new key.

use std::path::Path;

use http::Method;

use super::Asking;
use super::failure::Failure;
use super::text::clean;
use crate::api;

impl Asking {
    pub(super) async fn rotate_key(&self, new_key_file: Option<&Path>) -> Result<String, Failure> {
        // The server has another working folder.
        let new_key_file = new_key_file.map(std::path::absolute).transpose();
        let new_key_file = new_key_file.map_err(|error| {
            Failure::local("NO_FOLDER", format!("find the folder that --new-key-file is in: {error}"))
        })?;
        self.send(Method::POST, "/key/rotate", &api::RotateKey { new_key_file }, |rotated: api::RotatedKey| {
            let file = clean(&rotated.key_file.display().to_string());
            let left = rotated.replaces.map(|replaces| {
                let replaces = clean(&replaces.display().to_string());
                format!(
                    "it must take the place of {replaces} before the server's next start, which cannot begin with the old key; if that \
                     is a credential, of the file that LoadCredential= names\nbackups from before need the old key: keep it with them\n"
                )
            });
            let left = left.unwrap_or_else(|| {
                "backups from before have the old key in them, and stay good; another server on this database needs a copy of the new \
                 one\n"
                    .to_owned()
            });
            format!("every secret is sealed under the key in {file} from now on\n{left}")
        })
        .await
    }
}
