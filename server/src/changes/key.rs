//! The exchange of the sealing key: a change like any other, so that nothing is sealed under the old key any more once it is made.

use std::path::PathBuf;

use serde_json::json;

use super::{ChangeError, Changes, Note};
use crate::audit::Actor;
use crate::store::SealingExchange;

impl Changes {
    /// Seals every secret under another key, which the server makes itself or, where the key's file is not its own, reads from
    /// `new_key_file`. Out: where the new key is, and what is left to do.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    pub async fn exchange_key(
        &self,
        actor: &Actor,
        new_key_file: Option<PathBuf>,
    ) -> Result<SealingExchange, ChangeError> {
        let exchange = self.store.exchange_key(new_key_file).await?;
        self.apply(actor, |draft| {
            // After a commit of which nobody heard it may be made already.
            if !self.store.is_in_force(&exchange) {
                draft.exchange_key(&exchange)?;
            }
            let detail = json!({ "key_file": exchange.file(), "replaces": exchange.replaces() });
            Ok((exchange.clone(), Note { action: "key.rotate", target: "fleet".to_owned(), detail }))
        })
        .await
    }
}
