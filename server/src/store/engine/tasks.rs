//! The engine without threads: both connections belong to tasks of one runtime, so that a simulation can repeat it.
//!
//! In: as the engine. Out: as the engine, each answer after a time that chance gives. Always: what is asked for first is
//! done first; a crash can fall between any two steps of a request. Never: used by the running server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pulse_proto::{Chance, Clock};
use tokio::sync::{Semaphore, mpsc};

use super::dictionary::Dictionary;
use super::fault::Fault;
use super::link::Link;
use super::pace::Pace;
use super::sessions::Sessions;
use super::writer::Writer;
use super::{Engine, JoinOnDrop, MAX_REPORTS, MAX_REQUESTS, Question};
use crate::config::secret_key;
use crate::store::sealed::Sealing;
use crate::store::{Retention, StoreError, sqlite};

impl Engine {
    /// Opens or makes the database and starts both tasks. Needs a runtime around it. A database in another folder than the
    /// server's own is one that several share.
    pub(in crate::store) fn open_in_tasks(
        data_dir: &Path,
        database_dir: &Path,
        retention: Retention,
        clock: Clock,
        chance: Chance,
    ) -> Result<Engine, StoreError> {
        let lock = sqlite::schema::lock(data_dir)?;
        let path = database_dir.join("pulse.db");
        let name: Arc<str> = path.display().to_string().into();
        // Those that share the database share its key.
        let secret_key = secret_key::own(database_dir);
        let (connection, key) = sqlite::schema::open_writer(&path, &secret_key, &clock)?;
        let sealing = Arc::new(Sealing::new(key, &secret_key));
        let opened = connection
            .pragma_update(None, "synchronous", "off")
            .map_err(Fault::from)
            .and_then(|()| Dictionary::open(&sqlite::Statements(&connection)));
        let dictionary = opened.map_err(|fault| fault.while_doing("open the database", &name))?;
        let mut reading = Link::Sqlite(sqlite::schema::open_reader(&path)?);
        let pace = Pace(chance);

        let (questions_tx, mut questions_rx) = mpsc::channel::<Option<Question>>(MAX_REQUESTS);
        let reader_pace = pace.clone();
        tokio::task::spawn(async move {
            while let Some(Some(question)) = questions_rx.recv().await {
                reader_pace.wait().await;
                question(&mut reading);
            }
        });
        let is_writable = Arc::new(AtomicBool::new(true));
        let (requests_tx, requests_rx) = mpsc::channel(MAX_REPORTS + MAX_REQUESTS);
        let sessions = Sessions::default();
        let writer = Writer {
            name: Arc::clone(&name),
            link: Link::Sqlite(connection),
            dictionary,
            sessions: sessions.clone(),
            retention,
            clock,
            is_writable: Arc::clone(&is_writable),
            replica: None,
            readers: Vec::new(),
            lock,
        };
        tokio::task::spawn(writer.run_in_task(requests_rx, pace.clone()));
        let (report_slots, pace) = (Arc::new(Semaphore::new(MAX_REPORTS)), Some(pace));
        let _writer = JoinOnDrop(None);
        Ok(Engine {
            name,
            file: Some(path),
            shared: None,
            sealing,
            is_shared: data_dir != database_dir,
            questions_tx,
            readers: 1,
            requests_tx,
            report_slots,
            sessions,
            is_writable,
            pace,
            _writer,
        })
    }
}
