//! Where the sealing key is: the one under which the database's secrets are sealed.
//!
//! Always: what the configuration names goes before what the service manager hands over, and that before the data folder.
//! Never: opens the file.

use std::path::{Path, PathBuf};

use pulse_config::Environment;

/// The name of the key's file in the data folder, and of the service manager's credential.
pub const SECRET_KEY: &str = "secret.key";

/// Where the sealing key is, before the data folder is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretKey {
    /// The file that the configuration names.
    pub named: Option<PathBuf>,
    /// The folder in which the service manager puts credentials (systemd.exec(5), `LoadCredential=`).
    pub credentials: Option<PathBuf>,
}

impl SecretKey {
    /// What the configuration names, and the folder of credentials in the environment.
    #[must_use]
    pub fn of(named: Option<PathBuf>, environment: &Environment) -> SecretKey {
        SecretKey { named, credentials: environment.value("CREDENTIALS_DIRECTORY").map(PathBuf::from) }
    }

    /// The file: the one that is named, or else the credential if there is one, or else `secret.key` in the data folder.
    #[must_use]
    pub fn file(&self, data_dir: &Path) -> PathBuf {
        let credential = || Some(self.credentials.as_ref()?.join(SECRET_KEY)).filter(|file| file.exists());
        self.named.clone().or_else(credential).unwrap_or_else(|| own(data_dir))
    }
}

/// The key's file in a data folder: the one that a server makes and exchanges by itself, and that is in a backup.
#[must_use]
pub fn own(data_dir: &Path) -> PathBuf {
    data_dir.join(SECRET_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_goes_before_a_credential_and_that_before_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let environment: Environment =
            [("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())].into_iter().collect();
        let data_dir = Path::new("/data");
        let unnamed = SecretKey::of(None, &environment);
        assert_eq!(
            unnamed.file(data_dir),
            Path::new("/data/secret.key"),
            "there are credentials, and no key"
        );
        let credential = folder.path().join(SECRET_KEY);
        std::fs::write(&credential, "").unwrap();
        assert_eq!(unnamed.file(data_dir), credential);
        let named = SecretKey::of(Some("/etc/pulse/secret.key".into()), &environment);
        assert_eq!(named.file(data_dir), Path::new("/etc/pulse/secret.key"));
        assert_eq!(SecretKey::default().file(data_dir), own(data_dir));
    }
}
