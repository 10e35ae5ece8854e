//! Several servers on one database, for the tests of them.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::time::{Duration, Instant};

use pulse_test_support::postgres::Postgres;
use pulse_test_support::v1::{Node, NodeReport, ReportTemperaturesRequest};
use pulse_test_support::{Client, Server};

/// How long another server may take to hear of a change whose ring was lost: it asks every second.
pub(crate) const ASKED: Duration = Duration::from_secs(3);

/// A database, and some servers on it.
pub(crate) struct Replicas {
    pub(crate) servers: Vec<Server>,
    pub(crate) postgres: Postgres,
    pub(crate) url: String,
}

impl Replicas {
    pub(crate) fn start(count: usize) -> Replicas {
        let postgres = Postgres::start();
        let url = postgres.database();
        let first = Server::builder().config(&format!("database_url: {url}")).start();
        let mut replicas = Replicas { servers: vec![first], postgres, url };
        for _ in 1..count {
            let mut server = Server::builder().beside(&replicas.servers[0], &replicas.url);
            server.start_again();
            replicas.servers.push(server);
        }
        replicas
    }

    fn database(&self) -> &str {
        self.url.rsplit('/').next().expect("a URL has a path")
    }

    /// Asks the database itself.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let asked = self.postgres.ask(self.database(), sql);
        assert!(asked.status.success(), "{sql}: {}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8(asked.stdout).expect("psql writes UTF-8").trim().to_owned()
    }
}

/// Makes the instance `home` with the node `delly`, and a proxy of it, registered at this server.
pub(crate) async fn home(server: &Server) -> Client {
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    Client::register(server, &server.join_string(&["--instance", "home"]), "delly").await
}

pub(crate) fn set_nodes(server: &Server, nodes: &[&str]) -> Instant {
    let mut arguments = vec!["instance", "set", "--yes", "home"];
    nodes.iter().for_each(|node| arguments.extend(["--endpoint", node]));
    server.pulse_ok(&arguments);
    Instant::now()
}

pub(crate) fn revision(server: &Server) -> u64 {
    server.json(&["status"])["revision"].as_u64().expect("a revision is a number")
}

/// The revision that a server pushes, without making it ask: as its metrics have it.
pub(crate) fn shown_revision(server: &Server) -> f64 {
    server.metrics().value("pulse_revision")
}

/// A report of the node `delly`, which cannot be read.
pub(crate) fn report(sequence: u64) -> ReportTemperaturesRequest {
    ReportTemperaturesRequest {
        session: "01a1fa32-2365-76ec-b33a-29d69c7ef23e".to_owned(),
        sequence,
        reports: vec![NodeReport {
            node: Some(Node { name: "delly".to_owned(), ip: String::new() }),
            collected_at: Some(std::time::SystemTime::now().into()),
            unreadable_reason: "the test has no sensors".to_owned(),
            ..NodeReport::default()
        }],
    }
}
