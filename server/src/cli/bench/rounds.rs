//! Pushes: a change over the admin socket, and when each stream had the list.

use std::time::{Duration, Instant};

use super::Failure;
use super::crowd::Streams;
use super::figures::{Pushes, Times};
use super::list::List;
use super::process::Process;
use super::stage::Stage;
use crate::api;

/// How long a push may take to the last.
const PUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// What the server writes down after a push is not part of the next one.
const PAUSE: Duration = Duration::from_millis(200);

/// The pushes of one run.
pub(super) struct Rounds<'a> {
    stage: &'a Stage,
    process: &'a Process,
    streams: &'a mut Streams,
    number: u32,
    newest: List,
}

impl<'a> Rounds<'a> {
    /// None yet.
    pub(super) fn new(stage: &'a Stage, process: &'a Process, streams: &'a mut Streams) -> Rounds<'a> {
        let newest = List::new(stage.name(), super::FEW, 0);
        Rounds { stage, process, streams, number: 0, newest }
    }

    /// The list that was pushed last.
    pub(super) fn newest(&self) -> &List {
        &self.newest
    }

    /// So many pushes of lists of one size.
    pub(super) async fn push_all(&mut self, nodes: usize, rounds: u32) -> Result<Pushes, Failure> {
        let clients = self.streams.open();
        let before = self.process.cpu();
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(self.push(nodes).await?);
            tokio::time::sleep(PAUSE).await;
        }
        let took = self.process.cpu().zip(before).map(|(after, before)| after.since(&before));
        let microseconds = |took: Duration| took.as_secs_f64() * 1e6 / (f64::from(rounds) * clients as f64);
        let medians = Times::median(&times);
        let medians = medians.ok_or_else(|| Failure::local("BENCH", "nothing was pushed".to_owned()))?;
        Ok(Pushes {
            clients,
            nodes,
            medians,
            server_cpu_us_per_client: took.map(|took| (microseconds(took) * 10.0).round() / 10.0),
            rounds: times,
        })
    }

    async fn push(&mut self, nodes: usize) -> Result<Times, Failure> {
        self.number += 1;
        let list = List::new(self.stage.name(), nodes, self.number);
        let set = api::SetEndpoints { endpoints: list.endpoints(), yes: true };
        let began = Instant::now();
        let change = self.stage.set(&set);
        let streams = &mut *self.streams;
        let arriving = async {
            let mut times = Vec::with_capacity(streams.open());
            while times.len() < streams.open() {
                let arrival = streams.next(began + PUSH_TIMEOUT).await?;
                let ended = |why: String| Failure::local("BENCH", format!("a stream ended: {why}"));
                // Nothing else is pushed to them but this; each list comes once to each.
                if arrival.said.map_err(ended)? == list.hash() {
                    times.push(arrival.at.duration_since(began));
                }
            }
            Ok(times)
        };
        let ((), times) = tokio::try_join!(change, arriving)?;
        self.newest = list;
        Times::of(times).ok_or_else(|| Failure::local("BENCH", "nothing was pushed".to_owned()))
    }
}
