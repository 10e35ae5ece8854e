//! Arguments, logging, configuration, run, exit code.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pulse_config::{LogFormat, LogLevel};
use pulse_sensor_proxy::args::{Args, Command, JoinText};
use pulse_sensor_proxy::commands::{self, BAD_USAGE, CommandError};
use pulse_sensor_proxy::config::Config;
use pulse_sensor_proxy::shutdown::Signals;
use pulse_sensor_proxy::{Outcome, run, telemetry};
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    let mut args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    if let Command::Register(given) = &mut args.command {
        given.join_from_environment = std::env::var("PULSE_SENSOR_PROXY_JOIN").ok().map(JoinText);
    }
    match args.command {
        Command::Run => serve(&args),
        _ => {
            telemetry::init(LogLevel::Warn, LogFormat::Text);
            let runtime = runtime();
            let result = runtime.block_on(commands::execute(&args));
            runtime.shutdown_timeout(Duration::from_millis(100));
            commands::conclude(result, args.json)
        }
    }
}

fn serve(args: &Args) -> ExitCode {
    let (config, warnings) = match Config::load(&args.config_sources()) {
        Ok(loaded) => loaded,
        Err(error) => return commands::conclude(Err(error.into()), args.json),
    };
    telemetry::init(config.log_level, if args.json { LogFormat::Json } else { config.log_format });
    for warning in warnings {
        tracing::warn!(%warning, "configuration");
    }
    let runtime = runtime();
    let ended = runtime.block_on(async {
        match Signals::listen() {
            Ok(signals) => Ok(run(config, signals).await),
            Err(error) => Err(error),
        }
    });
    // A sensor or a name server that hangs keeps a thread, but not the program.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match ended {
        Ok(Ok(Outcome::Drained)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::Aborted)) => ExitCode::FAILURE,
        Ok(Err(error)) => commands::conclude(Err(error.into()), args.json),
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            ExitCode::FAILURE
        }
    }
}

/// One thread for everything; a few more for what blocks: names, disks, sensors.
fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .expect("the system gives a runtime its descriptors")
}

/// Help and version are no errors; with `--json` a mistake is told in JSON too.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let error =
            CommandError { text: text.trim_end().to_owned(), reason: "usage".to_owned(), is_usage: true };
        return commands::conclude(Err(error), true);
    }
    let _ = error.print();
    let _ = io::stdout().flush();
    if error.use_stderr() { ExitCode::from(BAD_USAGE) } else { ExitCode::SUCCESS }
}
