//! The program `pulse`: the server, and the command line that asks it.

use std::process::ExitCode;

use pulse::args::{Args, Command, Place, Serve};
use pulse::config::Config;
use pulse::shutdown::Signals;
use pulse::{RunError, cli, telemetry};
use pulse_config::{Environment, LogFormat, LogLevel};
use tokio::runtime::Runtime;

/// Gives back what connections left behind, and takes no page that was not written to: a fleet that comes and goes costs the
/// system's allocator a quarter more.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The operator must change something; the unit file does not restart on it.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let args = match Args::try_of_process() {
        Ok(args) => args,
        Err(error) => {
            // `--help` comes this way too; who cannot be told has closed the terminal.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(BAD_CONFIG));
        }
    };
    match &args.command {
        Command::Serve(flags) => serve(flags, &args.place, flags.over(std::env::vars_os())),
        Command::Admin(admin) => cli::run(admin, &args.place, Environment::of_process()),
        Command::Files(files) => cli::run_on_files(files, &args.place, Environment::of_process()),
    }
}

fn serve(flags: &Serve, place: &Place, environment: Environment) -> ExitCode {
    let (config, warnings) = match Config::load(&place.sources(flags, environment)) {
        Ok(loaded) => loaded,
        Err(error) => {
            telemetry::init(LogLevel::default(), LogFormat::default());
            for mistake in error.to_string().lines() {
                tracing::error!(%mistake, "the configuration is refused");
            }
            return ExitCode::from(BAD_CONFIG);
        }
    };
    telemetry::init(config.log_level, config.log_format);
    for warning in warnings {
        tracing::warn!(%warning, "the configuration is taken with a remark");
    }
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime does not start");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        let signals = Signals::listen().map_err(RunError::Signals)?;
        pulse::run(config, signals, std::io::stdout()).await
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the server ended");
            if error.is_for_operator() { ExitCode::from(BAD_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}
