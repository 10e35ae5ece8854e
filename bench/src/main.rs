//! Pulse's push engine and its peers, side by side in one run.
//!
//! In: what to measure. Out: a table of how far each target is met, and the run as JSON. Always: Pulse is its own release
//! binary, driven through the calls that everybody has; all traffic is on 127.0.0.0/8; every loop is bounded.

mod client;
mod clock;
mod crowd;
mod docs;
mod failure;
mod fleet;
mod heap;
mod list;
mod machine;
mod measure;
mod pace;
mod peers;
mod port;
mod postgres;
mod process;
mod record;
mod replicas;
mod report_message;
mod rounds;
mod run;
mod serve;
mod table;
mod targets;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Pulse beside its peers.
#[derive(Debug, Parser)]
#[command(name = "pulse-bench", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, and print the table
    Run(run::RunArgs),
    /// Measure several servers on one PostgreSQL beside one on its own file
    Replicas(replicas::Replicas),
    /// Count the bytes of an idle stream by the place that allocates them
    Heap(heap::Heap),
    /// Write the tables of the docs from a run that is kept with them
    Docs(docs::Docs),
    /// Be the server of a peer (the bench starts these itself)
    #[command(hide = true)]
    Serve(serve::Serve),
    /// Be the clients of a peer (the bench starts these itself)
    #[command(hide = true)]
    Client,
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Replicas(args) => replicas::run(&args),
        Command::Heap(heap) => heap::run(&heap),
        Command::Docs(docs) => docs::run(&docs),
        Command::Serve(serve) => serve::run(&serve),
        Command::Client => client::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "bench: {}", failure.chain());
            ExitCode::FAILURE
        }
    }
}
