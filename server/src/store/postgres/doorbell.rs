//! The database's bell: it rings when a server has committed a change.
//!
//! In: notifications on a connection of its own. Out: rings. Always: a new connection rings, as something may have been missed
//! before it. Rings can be lost, and say nothing but that it is worth to look: the one row with the revision counts.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::AsyncMessage;

use super::{Address, LONGEST};

/// What is notified, with the new revision, in the transaction that makes it: PostgreSQL tells it when that is committed.
pub(in crate::store) const RING: &str = "SELECT pg_notify('pulse_revision', $1)";

const LISTEN: &str = "LISTEN pulse_revision";

/// How long to wait before another connection.
const RETRY: Duration = Duration::from_secs(1);

/// Hears it. It hears no more when it is dropped.
#[derive(Debug)]
pub(in crate::store) struct Doorbell {
    rung: Arc<Notify>,
    hearing: JoinHandle<()>,
}

impl Doorbell {
    pub(in crate::store) fn new(address: Address, runtime: &Handle) -> Doorbell {
        let rung = Arc::new(Notify::new());
        let hearing = runtime.spawn(hear(address, Arc::clone(&rung)));
        Doorbell { rung, hearing }
    }

    /// Waits for it to ring.
    pub(in crate::store) async fn rung(&self) {
        self.rung.notified().await;
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.hearing.abort();
    }
}

async fn hear(mut address: Address, rung: Arc<Notify>) {
    address.config.application_name("pulse bell");
    loop {
        let ended = hear_once(&address, &rung).await;
        if let Err(error) = ended {
            // Whoever asks once in a while says it if the database is away.
            tracing::debug!(error = error.as_ref() as &dyn Error, "the database's bell is not heard");
        }
        sleep(RETRY).await;
    }
}

async fn hear_once(address: &Address, rung: &Notify) -> Result<(), Box<dyn Error + Send + Sync>> {
    let connecting = address.config.connect(address.tls.clone());
    let (client, mut connection) = timeout(LONGEST, connecting).await??;
    let mut messages = poll_fn(move |cx| connection.poll_message(cx));
    let mut listening = pin!(async {
        client.batch_execute(LISTEN).await?;
        rung.notify_one();
        std::future::pending().await
    });
    loop {
        let message = tokio::select! {
            ended = &mut listening => return ended,
            message = messages.next() => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(_))) => rung.notify_one(),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
    }
}
