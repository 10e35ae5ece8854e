//! A server, and a proxy that behaves beside whoever misbehaves.
//!
//! In: the server's configuration. Out: a list that changes when it is told to, and what the good proxy hears of it.
//! Always: the good proxy's stream is the same one from the beginning to the end.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pulse_test_support::v1::AllowlistSnapshot;
use pulse_test_support::{Client, Server, Watch, eventually};
use serde_json::json;
use tokio::runtime::Builder;

/// When the last of those who misbehave must have been noticed.
pub(crate) const NOTICED: Duration = Duration::from_secs(35);
/// When a pushed list must be there on a machine that runs many tests at once; alone it takes milliseconds.
pub(crate) const PROMPT: Duration = Duration::from_secs(5);

pub(crate) const SERVICE: &str = "/pulse.control.v1.ControlPlaneService";

pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) watch: Watch,
    pub(crate) join: String,
    pushes: usize,
}

impl Scene {
    pub(crate) async fn new(config: &str) -> Scene {
        let server = Server::builder().config(config).start();
        server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
        let join = server.join_string(&["--instance", "home", "--uses", "50"]);
        let client = Client::register(&server, &join, "delly").await;
        let mut watch = client.watch(Default::default()).await;
        watch.snapshot().await;
        Scene { server, client, watch, join, pushes: 0 }
    }

    /// Changes the list, and checks that the good proxy's stream still lives and hears of it at once.
    pub(crate) async fn a_push_arrives(&mut self) -> AllowlistSnapshot {
        self.pushes += 1;
        let node = format!("node-{}", self.pushes);
        let begun = Instant::now();
        self.server.pulse_ok(&[
            "instance",
            "set",
            "--yes",
            "home",
            "--endpoint",
            "delly",
            "--endpoint",
            &node,
        ]);
        let list = self.watch.snapshot().await;
        assert!(begun.elapsed() < PROMPT, "a push took {:?}", begun.elapsed());
        assert_eq!(list.nodes.len(), 2);
        list
    }

    /// Changes the list to `nodes` nodes whose names say which change this was, and waits until the good proxy has it.
    pub(crate) async fn a_long_push_arrives(&mut self, nodes: usize) -> AllowlistSnapshot {
        self.pushes += 1;
        let padding = "x".repeat(24);
        let name = |node| format!("node-{}-{node}-{padding}", self.pushes);
        let endpoints: Vec<_> = (0..nodes).map(|node| json!({ "name": name(node) })).collect();
        let begun = Instant::now();
        let body = json!({ "endpoints": endpoints, "yes": true });
        let answer = self.server.admin("PUT", "/instances/home", Some(&body)).expect("the server answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        let list = self.watch.snapshot().await;
        assert!(begun.elapsed() < PROMPT, "a push took {:?}", begun.elapsed());
        assert_eq!(list.nodes.len(), nodes);
        list
    }

    /// One value of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.server.metrics().value(name)
    }

    /// How many watch streams ended for this reason.
    pub(crate) fn ended(&self, reason: &str) -> f64 {
        self.metric(&format!("pulse_watch_streams_ended_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until one value of `/metrics` is this one.
    pub(crate) fn is_counted(&self, name: &str, value: f64, within: Duration) {
        eventually(within, &format!("{name} is {value}"), || {
            let counted = self.metric(name);
            if counted == value { Ok(()) } else { Err(counted) }
        });
    }

    pub(crate) fn connections(&self) -> f64 {
        self.metric("pulse_connections")
    }

    /// Waits until only these connections are left, beside the one that asks.
    pub(crate) fn is_left_with(&self, connections: f64, within: Duration) {
        eventually(within, "the connections have ended", || {
            let open = self.connections() - 1.0;
            if open <= connections { Ok(()) } else { Err(open) }
        });
    }

    /// The memory that the server holds.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.server.process().resident_bytes()
    }
}

/// Runs scenes that wait for half a minute side by side, each with a runtime of its own: one that blocks its thread
/// meanwhile must not hold up another's streams.
pub(crate) struct SideBySide(Vec<(&'static str, JoinHandle<()>)>);

impl SideBySide {
    pub(crate) fn new() -> SideBySide {
        SideBySide(Vec::new())
    }

    /// Begins a scene; its name is a fact, like that of a test.
    #[must_use]
    pub(crate) fn and(
        mut self,
        name: &'static str,
        scene: impl Future<Output = ()> + Send + 'static,
    ) -> SideBySide {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(|| {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime can be made").block_on(scene);
        });
        self.0.push((name, thread.expect("a thread can be started")));
        self
    }

    /// Waits for their ends. What went wrong is said by each thread's panic.
    pub(crate) fn all_hold(self) {
        let failed: Vec<&str> =
            self.0.into_iter().filter_map(|(name, scene)| scene.join().is_err().then_some(name)).collect();
        assert_eq!(failed, [""; 0]);
    }
}
