//! Where PostgreSQL is, if the database is there.
//!
//! Always: no password in the URL, where `ps` or a log could show it; TLS to everywhere but this machine.
//! Never: opens a file or a connection.

use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use pulse_config::{Environment, Section};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// The variable of the environment that has the password, for those who cannot give a file.
const PASSWORD_VARIABLE: &str = "PULSE_DATABASE_PASSWORD";

/// A database on PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Where it is.
    pub url: DatabaseUrl,
    /// Where its password is. `None`: in the environment, or the server asks for none.
    pub password_file: Option<PathBuf>,
    /// The password, out of the environment.
    pub password: Option<Password>,
    /// The authorities, in PEM, that its certificate is checked against; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// A URL of PostgreSQL as it was read: hosts, user, database and options.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Box<tokio_postgres::Config>);

/// A password that shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// That of the environment.
    #[must_use]
    pub fn of(environment: &Environment) -> Option<Password> {
        let password = environment.value(PASSWORD_VARIABLE).and_then(OsStr::to_str);
        password.map(|password| Password(password.to_owned()))
    }

    /// For the database alone.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl DatabaseUrl {
    /// Reads it.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: &str) -> Result<DatabaseUrl, String> {
        // The text itself is not repeated: it may hold a password.
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err("must be a URL like postgres://pulse@db.lan:5432/pulse".to_owned());
        }
        let read = text.parse::<tokio_postgres::Config>();
        let mut config = read.map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("is no URL of PostgreSQL: {source}"),
            None => "is no URL of PostgreSQL".to_owned(),
        })?;
        if config.get_password().is_some() {
            return Err(format!(
                "must have no password in it; put it into a file and name that in database_password_file, or set {PASSWORD_VARIABLE}"
            ));
        }
        if config.get_hosts().is_empty() || config.get_user().is_none() || config.get_dbname().is_none() {
            return Err(
                "must name a host, a user and a database, like postgres://pulse@db.lan/pulse".to_owned()
            );
        }
        let are_addresses_here = config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        if !(config.get_hosts().iter().all(is_here) && are_addresses_here) {
            if config.get_ssl_mode() == SslMode::Disable {
                return Err("must not turn TLS off (sslmode=disable) beyond this machine".to_owned());
            }
            config.ssl_mode(SslMode::Require);
        }
        // Of several machines one can be written to; a standby knows less than it.
        if config.get_hosts().len() > 1 && !text.contains("target_session_attrs") {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(DatabaseUrl(Box::new(config)))
    }

    /// What the driver takes, without a password.
    #[must_use]
    pub fn config(&self) -> &tokio_postgres::Config {
        &self.0
    }
}

/// Hosts, ports and database; without the user and the options.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        let ports = self.0.get_ports();
        for (at, host) in self.0.get_hosts().iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            match host {
                Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]")?,
                Host::Tcp(name) => f.write_str(name)?,
                Host::Unix(folder) => write!(f, "{}", folder.display())?,
            }
            if let Some(port) = ports.get(at).or_else(|| ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.0.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// Whether nobody else hears what is said to this host.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

/// Reads the keys that begin with `database_`.
pub(super) fn read(keys: &mut Section<'_, '_>, environment: &Environment) -> Option<Database> {
    let url = keys.value("database_url", DatabaseUrl::parse);
    let (password_file, ca_file) = (keys.path("database_password_file"), keys.path("database_ca_file"));
    let password = Password::of(environment);
    if !keys.has("database_url") {
        for key in ["database_password_file", "database_ca_file"] {
            if keys.has(key) {
                keys.refuse(key, "is of use beside a database_url only");
            }
        }
    }
    if password_file.is_some() && password.is_some() {
        keys.refuse(
            "database_password_file",
            format!("cannot stand beside {PASSWORD_VARIABLE}; remove one of the two"),
        );
    }
    Some(Database { url: url?, password_file, password, ca_file })
}
