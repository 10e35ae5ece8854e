//! The bench's end of a client process: commands in, answers out.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use crate::client::control::{Answer, Command as Order, Connect};
use crate::failure::{Doing, Failure, Outcome};
use crate::process::Process;

/// A client process with its connections.
#[derive(Debug)]
pub(crate) struct Crowd {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Crowd {
    /// Starts a client process without connections.
    pub(crate) fn start() -> Outcome<Crowd> {
        let own = std::env::current_exe().doing("find the bench's own program")?;
        let mut command = Command::new(own);
        command.arg("client").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start("a client process", &mut command)?;
        let input = process.child().stdin.take().expect("it is piped");
        let output = BufReader::new(process.child().stdout.take().expect("it is piped"));
        Ok(Crowd { process, input, output })
    }

    /// Says what to do, and waits for the answer.
    pub(crate) fn tell(&mut self, order: &Order) -> Outcome<Answer> {
        self.begin(order)?;
        self.answer()
    }

    /// Says what to do.
    pub(crate) fn begin(&mut self, order: &Order) -> Outcome<()> {
        let mut line = serde_json::to_vec(order).doing("write a command")?;
        line.push(b'\n');
        self.input.write_all(&line).doing("tell a client process what to do")
    }

    /// Waits for the answer to what was begun.
    pub(crate) fn answer(&mut self) -> Outcome<Answer> {
        let mut line = String::new();
        self.output.read_line(&mut line).doing("hear a client process")?;
        if line.is_empty() {
            self.process.check()?;
            return Err(Failure::new("a client process closed its output"));
        }
        let answer: Answer = serde_json::from_str(&line).doing("read an answer")?;
        if answer.error.is_empty() { Ok(answer) } else { Err(Failure::new(answer.error)) }
    }

    /// Connects all; an error if any is missing.
    pub(crate) fn connect(&mut self, connect: Connect) -> Outcome<Answer> {
        let answer = self.tell(&Order::Connect(connect))?;
        if answer.missing > 0 || !answer.ended.is_empty() {
            return Err(Failure::new(format!(
                "{} clients did not connect; tried again: {:?}; ended: {:?}",
                answer.missing, answer.retried, answer.ended
            )));
        }
        Ok(answer)
    }

    /// Processor time of the client process, in nanoseconds.
    pub(crate) fn cpu_ns(&mut self) -> Outcome<u64> {
        self.process.cpu_ns()
    }
}
