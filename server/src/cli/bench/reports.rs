//! Reports of temperatures, as many at one time as are bounded, for a few seconds.

use std::time::{Duration, Instant, SystemTime};

use pulse_proto::v1::{Node, NodeReport, Reading, ReportTemperaturesRequest, SensorKind};
use tokio::time::timeout;
use tonic::{Code, Status};
use uuid::Uuid;

use super::Failure;
use super::at_once::at_most;
use super::connection::{ANSWER_TIMEOUT, with_token};
use super::crowd::{Proxy, Streams, refused};
use super::figures::{Rate, Reports};

/// How long reports are made.
const MEASURED: Duration = Duration::from_secs(3);
/// Reports at one time, and at the most of one proxy: the server takes no more of one.
const IN_FLIGHT: usize = 64;
const OF_ONE: usize = 8;
/// How long one waits that is told to come back.
const PAUSE: Duration = Duration::from_millis(50);
/// Sensors of one node: a socket and its cores.
const SENSORS: u32 = 8;

/// What one caller did.
struct Done {
    times: Vec<Duration>,
    held_back: usize,
}

/// Reports of these nodes.
pub(super) async fn measure(streams: &Streams, nodes: &[Node]) -> Result<Reports, Failure> {
    let in_flight = IN_FLIGHT.min(OF_ONE * streams.open());
    let began = Instant::now();
    let callers = (0..in_flight).zip(streams.proxies().iter().cycle()).zip(nodes.iter().cycle());
    let callers = callers.map(|((_, proxy), node)| report(proxy.clone(), node.clone(), began + MEASURED));
    let done = at_most(in_flight, callers).await?;
    let together = began.elapsed();
    let held_back = done.iter().map(|done| done.held_back).sum();
    let rate = Rate::of(done.into_iter().flat_map(|done| done.times).collect(), together);
    let none = || Failure::local("BENCH", "the server took no report of temperatures".to_owned());
    Ok(Reports { in_flight, rate: rate.ok_or_else(none)?, held_back })
}

/// Reports one after the other, until then.
async fn report(proxy: Proxy, node: Node, until: Instant) -> Result<Done, Failure> {
    let mut client = proxy.connection.client();
    let failed = |status: Status| refused("report temperatures", &status, "limits.max_calls");
    let session = Uuid::new_v4().to_string();
    let mut done = Done { times: Vec::new(), held_back: 0 };
    let mut sequence = 0;
    while Instant::now() < until {
        sequence += 1;
        let message = ReportTemperaturesRequest {
            session: session.clone(),
            sequence,
            reports: vec![NodeReport {
                node: Some(node.clone()),
                collected_at: Some(SystemTime::now().into()),
                readings: (0..SENSORS).map(reading).collect(),
                ..NodeReport::default()
            }],
        };
        let request = with_token(message, &proxy.token).map_err(failed)?;
        let began = Instant::now();
        let answer = timeout(ANSWER_TIMEOUT, client.report_temperatures(request)).await;
        match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))) {
            Ok(answer) => match answer.into_inner().refused.first() {
                None => done.times.push(began.elapsed()),
                Some(node) => {
                    return Err(Failure::local("BENCH", format!("a report was not taken: {}", node.reason)));
                }
            },
            Err(status) if status.code() == Code::ResourceExhausted => {
                done.held_back += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(failed(status)),
        }
    }
    Ok(done)
}

fn reading(number: u32) -> Reading {
    let (kind, label) = match number {
        0 => (SensorKind::CpuPackage, "Package id 0".to_owned()),
        _ => (SensorKind::CpuCore, format!("Core {}", number - 1)),
    };
    Reading {
        sensor: format!("coretemp-isa-0000/temp{}", number + 1),
        chip: "coretemp".to_owned(),
        label,
        kind: kind.into(),
        temperature_celsius: 40.0 + f64::from(number),
        max_celsius: Some(80.0),
        critical_celsius: Some(100.0),
    }
}
