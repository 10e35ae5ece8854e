//! What the tests of Pulse share: the real binaries, each in folders of its own, and waits that are bounded.
//!
//! In: a wish ("a server", "a proxy of instance home"). Out: a running process that is driven as a person drives it:
//! command line, configuration file, signals, the port. Always: ports, folders and environment belong to one test
//! alone, so tests run in parallel; what was started is killed when its value is dropped, and if the test failed, the
//! log of each process is printed first. Never: code of the server or the proxy; a test of the binaries must not be
//! helped by what it tests (the contract, `pulse-proto`, is shared by nature).
//!
//! How a test begins:
//! ```no_run
//! use pulse_test_support::{Proxy, Server};
//!
//! let server = Server::start();
//! server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=127.0.0.1"]);
//! let proxy = Proxy::join(&server, "home", "delly");
//! let shown = server.wait_for_state(&proxy.id(), "IN_SYNC");
//! assert_eq!(shown["pushed"]["hash"], shown["applied"]["hash"]);
//! ```
//! The binaries must have been built: `cargo build --workspace`.

pub mod capture;
mod client;
pub mod deploy;
mod fault;
mod fixture;
mod http;
mod port;
pub mod postgres;
mod process;
pub mod proxmox;
mod proxy;
pub mod raw;
mod relay;
mod scrape;
mod server;
mod sysfs;
mod wait;
pub mod wire;

pub use client::{Client, Watch, connect, holding, with_token};
pub use fault::{Blow, Fault, written_in};
pub use fixture::{copy_with_links, fixtures, tree};
pub use http::{Answer, ask_in_plain_text};
pub use port::Port;
pub use process::{Ran, Running, binary};
pub use proxy::{Proxy, ProxyBuilder};
pub use pulse_proto::v1;
pub use relay::{Passing, Relay};
pub use scrape::Metrics;
pub use server::{Server, ServerBuilder};
pub use sysfs::SysTree;
pub use wait::{PATIENCE, eventually, in_time, let_pass};
