//! Keys and variables that the older proxy knew and this version has no use for.
//!
//! Always: each is accepted with one warning that names what took its place, so that an upgrade never stops on one.
//! Never: reads their values, some of which are secrets.

use pulse_config::{Environment, Place, Section, Warning};

const NOT_SERVED: &str =
    "is accepted but does nothing: this version reports to Pulse and does not serve callers";
const NO_METRICS: &str = "is accepted but does nothing: metrics are not served yet by this version";
const NO_SSH: &str = "is accepted but does nothing: this version reads its own host and never uses ssh";
const NO_PEERS: &str = "is accepted but does nothing: the local socket is not served yet by this version";
const STRICT: &str = "is accepted and no longer needed: a node that no list allows is always refused";

/// Keys of the configuration file, the variables that went with them (without the prefix), and what to say.
const KEYS: &[(&str, &[&str], &str)] = &[
    (
        "allowed_source_subnets",
        &["PULSE_SENSOR_PROXY_ALLOWED_SUBNETS", "PULSE_SENSOR_PROXY_ALLOWED_SOURCE_SUBNETS"],
        NOT_SERVED,
    ),
    (
        "metrics_address",
        &["PULSE_SENSOR_PROXY_METRICS_ADDR", "PULSE_SENSOR_PROXY_METRICS_ADDRESS"],
        NO_METRICS,
    ),
    ("strict_node_validation", &["PULSE_SENSOR_PROXY_STRICT_NODE_VALIDATION"], STRICT),
    ("read_timeout", &["PULSE_SENSOR_PROXY_READ_TIMEOUT"], NOT_SERVED),
    ("write_timeout", &["PULSE_SENSOR_PROXY_WRITE_TIMEOUT"], NOT_SERVED),
    ("max_ssh_output_bytes", &["PULSE_SENSOR_PROXY_MAX_SSH_OUTPUT_BYTES"], NO_SSH),
    ("require_proxmox_hostkeys", &["PULSE_SENSOR_PROXY_REQUIRE_PROXMOX_HOSTKEYS"], NO_SSH),
    ("allowed_peers", &[], NO_PEERS),
    ("allowed_peer_uids", &["PULSE_SENSOR_PROXY_ALLOWED_PEER_UIDS"], NO_PEERS),
    ("allowed_peer_gids", &["PULSE_SENSOR_PROXY_ALLOWED_PEER_GIDS"], NO_PEERS),
    ("allow_idmapped_root", &["PULSE_SENSOR_PROXY_ALLOW_IDMAPPED_ROOT"], NO_PEERS),
    ("allowed_idmap_users", &["PULSE_SENSOR_PROXY_ALLOWED_IDMAP_USERS"], NO_PEERS),
    ("rate_limit", &[], NOT_SERVED),
    ("http_enabled", &["PULSE_SENSOR_PROXY_HTTP_ENABLED"], NOT_SERVED),
    (
        "http_listen_addr",
        &["PULSE_SENSOR_PROXY_HTTP_ADDR", "PULSE_SENSOR_PROXY_HTTP_LISTEN_ADDR"],
        NOT_SERVED,
    ),
    ("http_tls_cert", &["PULSE_SENSOR_PROXY_HTTP_TLS_CERT"], NOT_SERVED),
    ("http_tls_key", &["PULSE_SENSOR_PROXY_HTTP_TLS_KEY"], NOT_SERVED),
    ("http_auth_token", &["PULSE_SENSOR_PROXY_HTTP_AUTH_TOKEN"], NOT_SERVED),
];

/// Variables that had no key.
const VARIABLES: &[(&str, &str)] = &[
    ("PULSE_SENSOR_PROXY_SOCKET", NO_PEERS),
    ("PULSE_SENSOR_PROXY_SSH_DIR", NO_SSH),
    (
        "PULSE_SENSOR_PROXY_AUDIT_LOG",
        "is accepted but does nothing: what happens is logged to the journal, and audited by the server",
    ),
    ("PULSE_SENSOR_PROXY_USER", "is accepted but does nothing: the service manager chooses the user"),
    (
        "PULSE_SENSOR_PROXY_SUPPRESS_CONTAINER_WARNING",
        "is accepted and no longer needed: there is no such warning",
    ),
];

/// Makes the older keys known; what is there of them is warned about.
pub(super) fn accept_keys(keys: &mut Section<'_, '_>) {
    for (key, variables, text) in KEYS {
        keys.retired(key, variables, text);
    }
}

/// Warns about the older variables that are set and had no key.
pub(super) fn warn_variables(environment: &Environment) -> impl Iterator<Item = Warning> {
    VARIABLES.iter().filter(|(name, _)| environment.value(name).is_some()).map(|(name, text)| Warning {
        place: Place::Variable((*name).to_owned()),
        key: String::new(),
        text: (*text).to_owned(),
    })
}
