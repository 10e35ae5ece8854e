//! The command line: what may be typed, as types.
//!
//! In: the arguments of the process. Out: [`Args`]. Always: what can be checked without a server is checked here,
//! so that it is a usage error (exit code 2) with the rule. Never: reads the environment or a file; `config` does.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args as Group, CommandFactory, Parser, Subcommand, ValueEnum};
use pulse_config::Environment;
use pulse_proto::Node;

use crate::api;
use crate::config::{ConfigSources, listen_address};
use crate::network::Network;

/// Pulse: tells temperature proxies on Proxmox hosts which nodes they may read, and gathers what they read.
#[derive(Clone, Debug, Parser)]
#[command(name = "pulse", version, propagate_version = true, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Where server and data are.
    #[command(flatten)]
    pub place: Place,
}

/// Where the configuration, the data and the admin socket are; with any command, before or behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Group)]
pub struct Place {
    /// Configuration file [default: /etc/pulse/pulse.yaml; environment: PULSE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of database, keys and admin socket [default: /var/lib/pulse; environment: PULSE_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Socket of the server to ask [default: admin.sock in the data folder]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(Serve),
    /// Ask a running server over its admin socket.
    #[command(flatten)]
    Admin(Admin),
    /// Work on files, without a server.
    #[command(flatten)]
    Files(Files),
}

/// `pulse serve`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Group)]
pub struct Serve {
    /// Addresses to listen on; empty: those of the configuration.
    // Not the comment above: rustdoc takes the brackets for a link.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        value_parser = listen_address,
        help = "Address to listen on; can be given several times [default: [::]:7655]"
    )]
    pub listen: Vec<SocketAddr>,
    /// No TLS; only on loopback addresses
    #[arg(long)]
    pub plaintext: bool,
}

/// What a running server is asked.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Admin {
    /// Proxmox instances and their nodes
    #[command(subcommand, arg_required_else_help = true)]
    Instance(Instance),
    /// Join tokens, with which hosts register their proxy
    #[command(subcommand, arg_required_else_help = true)]
    Join(Join),
    /// Proxies: what they are, hold and last said
    #[command(subcommand, arg_required_else_help = true)]
    Proxy(Proxy),
    /// Who may read what
    #[command(subcommand, arg_required_else_help = true)]
    Allowlist(Allowlist),
    /// The key of Pulse's own CA, which proxies have pinned
    #[command(subcommand, arg_required_else_help = true)]
    Tls(Tls),
    /// Write all that is needed to bring the fleet back to one file; it holds every key
    Backup {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
    /// The epoch of the fleet's lists
    #[command(subcommand, arg_required_else_help = true)]
    Epoch(Epoch),
    /// The newest temperatures
    Temps {
        /// Every sensor of this node only: its name or address
        node: Option<String>,
    },
    /// How the server is
    Status,
    /// Who did what: the newest rows of the audit log (with --json: one object a line)
    Audit {
        /// Show new rows as they come, until Ctrl-C
        #[arg(long, short)]
        follow: bool,
    },
}

/// What is done with files, without a server.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Files {
    /// Put a backup back into the data folder; no server may run on it
    Restore(Restore),
    /// Check the database, or a backup: integrity, audit log, every list
    Check {
        /// A backup [default: the database in the data folder, also while the server runs]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// `pulse restore …`.
#[derive(Clone, Debug, PartialEq, Eq, Group)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Begin a new epoch: proxies may have seen newer lists than those of the backup
    #[arg(long, conflicts_with = "keep_epoch")]
    pub new_epoch: bool,
    /// Keep the epoch: nothing was changed since the backup was made
    #[arg(long)]
    pub keep_epoch: bool,
    /// Do not ask; and go on though the check found something, if a server can run on it
    #[arg(long)]
    pub yes: bool,
}

/// `pulse epoch …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Epoch {
    /// Begin a new epoch: every list becomes newer than all that proxies hold, and goes to them at once
    New {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `pulse instance …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Instance {
    /// Add an instance
    Add {
        /// Its name: 1 to 63 of A-Z a-z 0-9 . _ -
        name: String,
        /// A node, and where it is; can be given several times
        #[arg(long = "endpoint", value_name = "NODE=ADDR", value_parser = endpoint)]
        endpoints: Vec<Node>,
    },
    /// List instances
    List,
    /// Show one instance and its nodes
    Show {
        /// Its name
        name: String,
    },
    /// Replace the nodes of an instance
    Set {
        /// Its name
        name: String,
        /// A node, and where it is; give all that it shall have
        #[arg(long = "endpoint", value_name = "NODE=ADDR", value_parser = endpoint, required = true)]
        endpoints: Vec<Node>,
    },
    /// Remove an instance; its proxies may then read nothing
    Remove {
        /// Its name
        name: String,
        /// Yes, though it has proxies
        #[arg(long)]
        yes: bool,
    },
}

/// `pulse join …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Join {
    /// Make a join token, and print its join string: this once
    Create {
        /// The instance to which its proxies belong [default: the one that has the host as a node]
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
        /// The nodes that its proxies may read
        #[arg(long, value_enum, default_value_t = Scope::Instance)]
        scope: Scope,
        /// How many proxies can register with it
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// How long it is good for
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = ttl)]
        ttl: Duration,
    },
    /// List join tokens, and whether hosts without one may register
    List,
    /// Let hosts without a join token register for a while; each then waits for `pulse proxy approve`
    Open {
        /// How long
        #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = ttl)]
        ttl: Duration,
        /// Only from these addresses; can be given several times [default: from everywhere]
        #[arg(long, value_name = "CIDR")]
        from: Vec<Network>,
    },
    /// Close what `pulse join open` opened
    Close,
    /// End a join token
    Revoke {
        /// Its id, as `pulse join list` shows it
        id: String,
    },
}

/// `pulse proxy …`. A proxy is named by its id, the beginning of its id, or its hostname.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Proxy {
    /// List proxies
    List,
    /// Show all that is known of one proxy
    Show {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
    },
    /// Move a proxy to an instance, or change which nodes it may read
    #[command(group = clap::ArgGroup::new("what").args(["instance", "scope"]).required(true).multiple(true))]
    Set {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
        /// The instance to which it belongs from now on
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
        /// The nodes that it may read from now on
        #[arg(long, value_enum)]
        scope: Option<Scope>,
    },
    /// Approve a proxy that registered without a join token: from now on it gets its list
    Approve {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
        /// The instance to which it belongs [default: the one that has the host as a node]
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
        /// The nodes that it may read [default: instance]
        #[arg(long, value_enum)]
        scope: Option<Scope>,
    },
    /// Make a token with which grpcurl is pushed what a proxy is pushed, and print the command: this once
    DebugToken {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
        /// How long it is good for
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = ttl)]
        ttl: Duration,
    },
    /// Have a proxy take a new token
    Rotate {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
    },
    /// End a proxy's token: it may read nothing until it is registered again
    Revoke {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
    },
    /// Revoke a proxy and take it off the list
    Remove {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
    },
}

/// `pulse allowlist …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Allowlist {
    /// Show which nodes may be read
    Show {
        /// By the proxies of one instance [default: every list]
        #[arg(long, value_name = "NAME", conflicts_with = "all")]
        instance: Option<String>,
        /// By the proxies that may read all nodes
        #[arg(long)]
        all: bool,
        /// As it was made at this revision of the fleet
        #[arg(long, value_name = "REV")]
        revision: Option<u64>,
    },
    /// Show how lists came about: revision, when, who, and how many nodes came and went
    History {
        /// The list of one instance [default: every list]
        #[arg(long, value_name = "NAME", conflicts_with = "all")]
        instance: Option<String>,
        /// The list of all nodes
        #[arg(long)]
        all: bool,
        /// How many, the newest first
        #[arg(long, value_name = "N", default_value_t = api::LIST_REVISIONS, value_parser = clap::value_parser!(u32).range(1..=i64::from(api::MAX_LIST_REVISIONS)))]
        limit: u32,
    },
    /// Show how the list of one revision differs from that of another
    Diff {
        /// The revision of the first, as `history` shows it
        #[arg(value_name = "REV")]
        from: u64,
        /// The revision of the second
        #[arg(value_name = "REV")]
        to: u64,
        /// The list of one instance [default: of the only one]
        #[arg(long, value_name = "NAME", conflicts_with = "all")]
        instance: Option<String>,
        /// The list of all nodes
        #[arg(long)]
        all: bool,
    },
}

/// `pulse tls …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Tls {
    /// Begin to exchange the CA's key: proxies learn the new pin by themselves, the old one stays good meanwhile
    Rotate,
    /// End the exchange: the old pin is good no more
    Finish {
        /// Yes, though some proxies may not have heard the new pin; those must then be registered again
        #[arg(long)]
        yes: bool,
    },
}

/// Which nodes a proxy may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Those of its instance
    Instance,
    /// Every node that Pulse knows
    All,
}

impl From<Scope> for api::ScopeKind {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Instance => Self::Instance,
            Scope::All => Self::All,
        }
    }
}

impl Args {
    /// Reads the arguments of the process; what is wrong with them, and `--help`, comes back as the error, whose
    /// `exit` prints it.
    ///
    /// # Errors
    /// The arguments are none, or ask for help or the version.
    pub fn try_of_process() -> Result<Args, clap::Error> {
        Args::try_parse()?.checked()
    }

    fn checked(self) -> Result<Args, clap::Error> {
        let (flag, command) = match (&self.command, &self.place) {
            (Command::Serve(_), Place { json: true, .. }) => ("--json", "serve"),
            (Command::Serve(_), Place { socket: Some(_), .. }) => ("--socket", "serve"),
            (Command::Files(Files::Restore(_)), Place { socket: Some(_), .. }) => ("--socket", "restore"),
            (Command::Files(Files::Check { .. }), Place { socket: Some(_), .. }) => ("--socket", "check"),
            _ => return Ok(self),
        };
        let text = format!("'{flag}' asks a running server and cannot be used with '{command}'");
        Err(Args::command().error(ErrorKind::ArgumentConflict, text))
    }
}

impl Serve {
    /// The environment with the flags above it that have no place of their own in [`ConfigSources`].
    #[must_use]
    pub fn over(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Environment {
        let flag = self.plaintext.then(|| ("PULSE_PLAINTEXT".to_owned(), OsString::from("true")));
        variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value))).chain(flag).collect()
    }
}

impl Place {
    /// Where the configuration comes from; `serve` has flags of its own.
    #[must_use]
    pub fn sources(&self, serve: &Serve, environment: Environment) -> ConfigSources {
        let (path, data_dir) = (self.config.clone(), self.data_dir.clone());
        ConfigSources { path, data_dir, listen: serve.listen.clone(), environment }
    }
}

/// `NODE=ADDR`; `NODE` or `NODE=` if only the name is known.
fn endpoint(text: &str) -> Result<Node, String> {
    let (name, address) = text.split_once('=').unwrap_or((text, ""));
    Node::new(name, address).map_err(|error| error.to_string())
}

fn ttl(text: &str) -> Result<Duration, String> {
    match pulse_config::parse_duration(text)? {
        short if short < Duration::from_secs(1) => Err(format!("must be at least 1s, but is {text:?}")),
        ttl => Ok(ttl),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace()).and_then(Args::checked)
    }

    fn admin(line: &str) -> Admin {
        match parse(line).unwrap_or_else(|error| panic!("{line}: {error}")).command {
            Command::Admin(admin) => admin,
            Command::Serve(_) | Command::Files(_) => panic!("{line}: no question to a server"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_documented_line_is_understood() {
        for line in [
            "pulse serve",
            "pulse serve --config pulse.yaml --data-dir /tmp/x --listen 127.0.0.1:0 --listen [::1]:7655",
            "pulse serve --plaintext --listen 127.0.0.1:7655",
            "pulse --data-dir /tmp/x serve",
            "pulse instance add home",
            "pulse instance add home --endpoint delly=192.168.0.5 --endpoint minipc",
            "pulse instance list --json",
            "pulse instance show home",
            "pulse instance set home --endpoint delly=2001:db8::5",
            "pulse instance remove home --yes",
            "pulse join create",
            "pulse join create --instance home --scope all --uses 3 --ttl 90m",
            "pulse join list",
            "pulse join revoke 0a1b2c3d",
            "pulse join open",
            "pulse join open --ttl 1h --from 10.0.0.0/24 --from 2001:db8::7",
            "pulse join close",
            "pulse proxy approve 0192",
            "pulse proxy approve delly --instance home --scope all",
            "pulse proxy debug-token delly --ttl 10m",
            "pulse proxy list --data-dir /tmp/x --socket /tmp/x/admin.sock --config pulse.yaml --json",
            "pulse proxy show delly",
            "pulse proxy set 0192 --instance home",
            "pulse proxy set 0192 --scope all",
            "pulse proxy rotate 0192",
            "pulse proxy revoke 0192",
            "pulse proxy remove 0192",
            "pulse allowlist show",
            "pulse allowlist show --instance home",
            "pulse allowlist show --all",
            "pulse allowlist show --all --revision 7",
            "pulse allowlist history",
            "pulse allowlist history --instance home --limit 500 --json",
            "pulse allowlist diff 3 7",
            "pulse allowlist diff 3 7 --all",
            "pulse backup /srv/pulse.tar --force",
            "pulse epoch new --yes",
            "pulse restore /srv/pulse.tar --data-dir /tmp/x --new-epoch",
            "pulse restore /srv/pulse.tar --keep-epoch --yes",
            "pulse check",
            "pulse check /srv/pulse.tar --json",
            "pulse temps",
            "pulse temps delly --json",
            "pulse status",
            "pulse audit --follow",
            "pulse --json audit",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn what_can_be_told_without_a_server_is_a_usage_error() {
        for (line, named) in [
            ("pulse instance set home", "--endpoint"),
            ("pulse instance add home --endpoint a=10.0.0.0/24", "it is a range"),
            ("pulse instance add home --endpoint =10.0.0.1", "needs a name"),
            ("pulse join create --ttl 5y", "must be a duration like"),
            ("pulse join create --ttl 10ms", "at least 1s"),
            ("pulse join create --uses 0", "0 is not in 1.."),
            ("pulse join open --from 10.0.0.0/40", "is no network"),
            ("pulse proxy approve", "<ID>"),
            ("pulse join create --scope everything", "possible values: instance, all"),
            ("pulse proxy set 0192", "--instance"),
            ("pulse allowlist show --all --instance home", "cannot be used with"),
            ("pulse allowlist history --limit 0", "0 is not in 1..=500"),
            ("pulse allowlist diff 3", "<REV>"),
            ("pulse restore", "<FILE>"),
            ("pulse restore x --new-epoch --keep-epoch", "cannot be used with"),
            ("pulse check --socket /tmp/x", "cannot be used with 'check'"),
            ("pulse serve --listen pulse.lan:7655", "must be an address with a port"),
            ("pulse serve --json", "cannot be used with 'serve'"),
            ("pulse serve --socket /tmp/x", "cannot be used with 'serve'"),
            ("pulse proxy", "Usage"),
            ("pulse", "Usage"),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn a_join_token_is_for_one_proxy_of_its_own_instance_and_a_day_unless_said_otherwise() {
        let (uses, ttl) = (1, Duration::from_secs(86_400));
        let default = Join::Create { instance: None, scope: Scope::Instance, uses, ttl };
        assert_eq!(admin("pulse join create"), Admin::Join(default));
    }

    #[test]
    fn an_endpoint_without_an_address_is_a_node_known_by_name() {
        let only_name = Node::new("delly", "").unwrap();
        for line in ["pulse instance add home --endpoint delly", "pulse instance add home --endpoint delly="]
        {
            let endpoints = vec![only_name.clone()];
            assert_eq!(admin(line), Admin::Instance(Instance::Add { name: "home".into(), endpoints }));
        }
    }

    #[test]
    fn plaintext_is_a_flag_above_the_environment() {
        let serve = |plaintext| Serve { plaintext, ..Serve::default() };
        let variables = || [("PULSE_PLAINTEXT".into(), "false".into())].into_iter();
        let value = |environment: Environment| environment.value("PULSE_PLAINTEXT").map(ToOwned::to_owned);
        assert_eq!(value(serve(true).over(variables())), Some("true".into()));
        assert_eq!(value(serve(false).over(variables())), Some("false".into()));
    }

    #[test]
    fn help_names_the_environment_and_ends_well() {
        let help = parse("pulse serve --help").expect_err("help");
        assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
        assert!(help.to_string().contains("PULSE_DATA_DIR") && help.to_string().contains("--listen"));
    }
}
