//! A proxy of the test's own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::fault::Fault;
use crate::process::{Ran, Running, Variables, command, run, set};
use crate::server::Server;
use crate::sysfs::SysTree;
use crate::wait::{PATIENCE, eventually};

/// A proxy before it is made.
#[derive(Debug)]
pub struct ProxyBuilder {
    hostname: String,
    config: String,
    sysfs_root: Option<PathBuf>,
    variables: Variables,
}

impl ProxyBuilder {
    /// Adds lines to the configuration file, which has `report_interval: 1s` unless they say otherwise, and
    /// `sensors.sysfs_root`. The block `pulse_control_plane` is added by registration.
    #[must_use]
    pub fn config(mut self, yaml: &str) -> ProxyBuilder {
        self.config.push_str(yaml);
        self.config.push('\n');
        self
    }

    /// Reads this sysfs instead of one of its own, whose temperatures the test sets.
    #[must_use]
    pub fn sysfs_root(mut self, root: &Path) -> ProxyBuilder {
        self.sysfs_root = Some(root.to_owned());
        self
    }

    /// Adds an environment variable; the environment is empty otherwise, but for `PATH`.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> ProxyBuilder {
        set(&mut self.variables, name, value);
        self
    }

    /// Makes its folders and its configuration. It is not registered and does not run.
    #[must_use]
    pub fn build(self) -> Proxy {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let tree = SysTree::new();
        let root = self.sysfs_root.as_deref().unwrap_or(tree.root());
        let interval = if self.config.contains("report_interval:") { "" } else { "report_interval: 1s\n" };
        let config = format!("{interval}sensors:\n  sysfs_root: {}\n{}", root.display(), self.config);
        std::fs::write(folder.path().join("config.yaml"), config).expect("a file can be written");
        Proxy { running: None, folder, tree, hostname: self.hostname, variables: self.variables }
    }

    /// Makes it, registers it for an instance, and runs it.
    ///
    /// # Panics
    /// When it cannot be registered.
    #[must_use]
    pub fn join(self, server: &Server, instance: &str) -> Proxy {
        let mut proxy = self.build();
        proxy.register_ok(&server.join_string(&["--instance", instance]));
        proxy.start();
        proxy
    }
}

/// A proxy with a configuration file, a state folder and a sysfs of its own, which outlive the process. Killed when
/// dropped.
#[derive(Debug)]
pub struct Proxy {
    // First, so that the process ends before its folders go.
    running: Option<Running>,
    folder: TempDir,
    tree: SysTree,
    hostname: String,
    variables: Variables,
}

impl Proxy {
    /// A proxy with settings of its own; it calls itself `hostname` when it registers, and so it reads the listed node
    /// of that name.
    #[must_use]
    pub fn builder(hostname: &str) -> ProxyBuilder {
        let hostname = hostname.to_owned();
        ProxyBuilder { hostname, config: String::new(), sysfs_root: None, variables: Variables::new() }
    }

    /// Makes a proxy, registers it for an instance, and runs it. It reports each second.
    ///
    /// # Panics
    /// When it cannot be registered.
    #[must_use]
    pub fn join(server: &Server, instance: &str, hostname: &str) -> Proxy {
        Proxy::builder(hostname).join(server, instance)
    }

    /// Runs `register --join - --hostname HOSTNAME` with the join string as standard input.
    pub fn register(&self, join: &str) -> Ran {
        self.register_with(join, &["--hostname", &self.hostname])
    }

    /// Runs `register --join - ARGUMENTS` with the join string as standard input.
    pub fn register_with(&self, join: &str, arguments: &[&str]) -> Ran {
        let mut register = self.command("register");
        register.args(["--join", "-"]).args(arguments);
        run(register, &format!("{join}\n"))
    }

    /// The same.
    ///
    /// # Panics
    /// When it fails.
    pub fn register_ok(&self, join: &str) {
        let ran = self.register(join);
        assert!(ran.is_success(), "register {}: {ran:?}", self.hostname);
    }

    /// Starts `run`; does not wait for anything.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start(&mut self) {
        if let Some(running) = &mut self.running {
            assert!(running.ended().is_some(), "proxy {} runs already", self.hostname);
        }
        self.running = Some(Running::start(&format!("proxy {}", self.hostname), self.command("run")));
    }

    /// Starts `run` with a fault in it; does not wait for anything.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start_with(&mut self, fault: &Fault) {
        if let Some(running) = &mut self.running {
            assert!(running.ended().is_some(), "proxy {} runs already", self.hostname);
        }
        let run = fault.around(&self.command("run"));
        self.running = Some(Running::start(&format!("proxy {}", self.hostname), run));
    }

    /// Runs `register --join -` to its end, with a fault in it.
    pub fn register_with_fault(&self, join: &str, fault: &Fault) -> Ran {
        let mut register = self.command("register");
        register.args(["--join", "-", "--hostname", &self.hostname]);
        run(fault.around(&register), &format!("{join}\n"))
    }

    /// Runs another subcommand to its end: `pulse-sensor-proxy SUBCOMMAND ARGUMENTS`.
    pub fn proxy(&self, subcommand: &str, arguments: &[&str]) -> Ran {
        let mut command = self.command(subcommand);
        command.args(arguments);
        run(command, "")
    }

    /// The subcommand with `--config` and `--state-dir`, as a process that is not started.
    fn command(&self, subcommand: &str) -> std::process::Command {
        let mut command = command("pulse-sensor-proxy", &self.variables);
        command.args(subcommand.split(' ')).arg("--config").arg(self.config_path());
        command.arg("--state-dir").arg(self.state_dir());
        command
    }

    /// `status --json`.
    ///
    /// # Panics
    /// When it prints no JSON.
    pub fn status(&self) -> Value {
        self.proxy("status", &["--json"]).json()
    }

    /// Waits until `status --json` is as `is_so` wants it, and returns it.
    ///
    /// # Panics
    /// When it is not in [`PATIENCE`].
    pub fn wait_for_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(PATIENCE, &format!("the status of proxy {}: {what}", self.hostname), || {
            let status = self.status();
            if is_so(&status) { Ok(status) } else { Err(status) }
        })
    }

    /// Its identity, from its state folder.
    ///
    /// # Panics
    /// When it has none.
    pub fn id(&self) -> String {
        let path = self.control_dir().join("identity.json");
        let text = std::fs::read_to_string(&path).expect("a registered proxy has an identity");
        let identity: Value = serde_json::from_str(&text).expect("the identity is JSON");
        identity["proxy_id"].as_str().expect("a registered proxy has an id").to_owned()
    }

    /// The folder of its one server: `STATE/control/SERVER_ID`.
    ///
    /// # Panics
    /// When there is none, or more than one.
    pub fn control_dir(&self) -> PathBuf {
        let folders = std::fs::read_dir(self.state_dir().join("control")).expect("the proxy was registered");
        let paths = folders.map(|entry| entry.expect("a folder can be listed").path());
        let folders: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
        assert_eq!(folders.len(), 1, "a proxy of a test has one server: {folders:?}");
        folders[0].clone()
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    /// Its state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Its sysfs, unless another was given.
    pub fn sysfs(&self) -> &SysTree {
        &self.tree
    }

    /// Its process.
    ///
    /// # Panics
    /// When it was not started.
    pub fn process(&self) -> &Running {
        self.running.as_ref().expect("the proxy was started")
    }

    fn running_mut(&mut self) -> &mut Running {
        self.running.as_mut().expect("the proxy was started")
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.running_mut().kill();
    }

    /// Its exit status, if it ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.running_mut().ended()
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.process().terminate();
    }

    /// Waits for its end, and returns its exit code; `None`: a signal ended it.
    ///
    /// # Panics
    /// When it still runs after `within`.
    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        self.running_mut().wait_exit(within)
    }
}
