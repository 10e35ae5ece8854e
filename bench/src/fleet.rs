//! The proxies of a run, registered with Pulse as any proxy is: a join token, and a `Register` call for each.
//!
//! In: an empty server. Out: a data folder that knows the proxies, and a file with their tokens, one a line. Always: each
//! proxy has a hostname and a machine id of its own.

use std::path::Path;

use hyper_util::rt::TokioIo;
use pulse_proto::JoinString;
use pulse_proto::v1::control_plane_service_client::ControlPlaneServiceClient;
use pulse_proto::v1::{ProxyKind, RegisterRequest};
use tokio::task::JoinSet;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};

use crate::failure::{Doing, Failure, Outcome};
use crate::list::List;
use crate::peers::pulse::{INSTANCE, Pulse};

/// Proxies that report while the clients are pushed to.
pub(crate) const REPORTERS: usize = 256;

/// Connections over which proxies are registered, and how many each has under way at one time.
const CONNECTIONS: usize = 8;
const CALLS_OF_ONE: usize = 8;

/// Makes the instance, and registers so many proxies of it, and some that are none of the clients: one that comes anew, and
/// those that report. Each hostname is `host-NUMBER`.
pub(crate) fn register(pulse: &Pulse, count: usize) -> Outcome<()> {
    let mut add = List::new(8, 0).endpoints();
    add["name"] = INSTANCE.into();
    pulse.admin("POST", "/instances", Some(&add))?;
    let all = count + REPORTERS + 1;
    let join = join_token(pulse, Some(INSTANCE), all)?;
    let hosts = (0..all).map(|number| format!("host-{number:07}")).collect();
    let mut tokens = register_hosts(pulse, &join, hosts)?;
    let newcomer = tokens.pop().expect("there is one more");
    std::fs::write(pulse.newcomer(), newcomer).doing("write the token of one that comes anew")?;
    let reporters = tokens.split_off(count);
    std::fs::write(pulse.reporters(), reporters.join("\n")).doing("write the tokens of those that report")?;
    std::fs::write(pulse.tokens(), tokens.join("\n")).doing("write the tokens")
}

/// A join token that is good for so many proxies, of an instance or of that which has the host as a node.
pub(crate) fn join_token(pulse: &Pulse, instance: Option<&str>, uses: usize) -> Outcome<String> {
    let uses = uses.to_string();
    let mut arguments = vec!["join", "create", "--uses", &uses];
    if let Some(instance) = instance {
        arguments.extend(["--instance", instance]);
    }
    let created = pulse.command(&arguments)?;
    let text = created["join"].as_str().ok_or_else(|| Failure::new("no join string was printed"))?;
    let join: JoinString = text.parse().doing("read the join string")?;
    let token = join.join.ok_or_else(|| Failure::new("the join string has no token"))?;
    Ok(token.reveal().to_owned())
}

/// Registers hosts by their names; returns their tokens in the same order.
pub(crate) fn register_hosts(pulse: &Pulse, join: &str, hosts: Vec<String>) -> Outcome<Vec<String>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().doing("start a runtime")?;
    let address = pulse.address();
    let join = join.to_owned();
    let count = hosts.len();
    runtime.block_on(async move {
        let mut tasks = JoinSet::new();
        let mut channels: Vec<Channel> = Vec::new();
        for _ in 0..CONNECTIONS.min(count) {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).doing("name the server")?;
            let dial = tower::service_fn(move |_| async move {
                let stream = tokio::net::TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            });
            channels.push(endpoint.connect_with_connector(dial).await.doing("connect to Pulse")?);
        }
        let lanes = channels.len() * CALLS_OF_ONE;
        let mut shares: Vec<Vec<(usize, String)>> = vec![Vec::new(); lanes];
        for (number, host) in hosts.into_iter().enumerate() {
            shares[number % lanes].push((number, host));
        }
        for (lane, share) in shares.into_iter().enumerate() {
            let (channel, join) = (channels[lane / CALLS_OF_ONE].clone(), join.clone());
            tasks.spawn(register_some(channel, join, share));
        }
        let mut tokens = vec![String::new(); count];
        while let Some(done) = tasks.join_next().await {
            for (number, token) in done.doing("register proxies")?? {
                tokens[number] = token;
            }
        }
        Ok(tokens)
    })
}

async fn register_some(
    channel: Channel,
    join: String,
    hosts: Vec<(usize, String)>,
) -> Outcome<Vec<(usize, String)>> {
    let mut client = ControlPlaneServiceClient::new(channel);
    let bearer: AsciiMetadataValue = format!("Bearer {join}").parse().doing("write the join token")?;
    let mut tokens = Vec::with_capacity(hosts.len());
    for (number, host) in hosts {
        let mut request = tonic::Request::new(RegisterRequest {
            machine_id: format!("{:064x}", number + 1),
            hostname: host,
            kind: ProxyKind::Socket.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RegisterRequest::default()
        });
        request.metadata_mut().insert("authorization", bearer.clone());
        let registered = client.register(request).await.doing("register a proxy")?;
        tokens.push((number, registered.into_inner().ctrl_token));
    }
    Ok(tokens)
}

/// Copies a data folder of a server that has ended.
pub(crate) fn copy(from: &Path, to: &Path) -> Outcome<()> {
    let data = to.join("data");
    std::fs::create_dir_all(&data).doing(format!("make {}", data.display()))?;
    for entry in std::fs::read_dir(from.join("data")).doing("list a data folder")? {
        let entry = entry.doing("list a data folder")?;
        let is_file = entry.file_type().doing("look at a file")?.is_file();
        if is_file {
            std::fs::copy(entry.path(), data.join(entry.file_name())).doing("copy a data folder")?;
        }
    }
    Ok(())
}
