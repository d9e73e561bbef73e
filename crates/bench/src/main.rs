//! The program of `just bench`: a node and a bare server do the same work in turn, and the ratio of their CPU time per
//! operation is compared with a budget. Sessions and limits are compared with the same calls without, of one node.
//!
//! `phalanx-bench compare` wants the release binary of the tour beside its own; `phalanx-bench smoke` takes the debug
//! one and proves only that the bench works. Absolute times mean nothing on a shared machine, so only ratios have
//! gates.
#![expect(clippy::print_stdout, reason = "the report goes to stdout")]

mod apply;
mod beside;
mod ceiling;
mod compare;
mod crowd;
mod instructions;
mod jobs;
mod json;
mod load;
mod node;
mod process;
mod report;
mod row;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::row::Row;

/// An error that ends the program with its message.
type Anyhow = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compares a node with the ceilings; exits 1 if a gate is missed.
    Compare {
        /// The binary of the tour; by default the one beside this binary.
        #[arg(long)]
        server: Option<PathBuf>,
        /// The rows to run, by name; by default all.
        #[arg(long, value_delimiter = ',')]
        rows: Vec<Row>,
        /// The number of rounds, in each of which both sides run.
        #[arg(long, default_value_t = 35)]
        rounds: usize,
    },
    /// Counts the instructions of a call without session, limit or group, and of an earlier build; exits 1 if they are more
    /// than one percent more. Needs valgrind.
    Instructions {
        /// The release binary of the earlier tour.
        base: PathBuf,
        /// The binary of the tour; by default the one beside this binary.
        #[arg(long)]
        server: Option<PathBuf>,
    },
    /// Runs every row once, small, without gates.
    Smoke {
        /// The binary of the tour; by default the one beside this binary.
        #[arg(long)]
        server: Option<PathBuf>,
    },
    /// Times the check of the JSON that a client publishes.
    Json {
        /// The number of rounds; the fastest counts.
        #[arg(long, default_value_t = 200)]
        rounds: usize,
    },
    /// Publishes a reply for every message: the ceiling for calls between nodes.
    Echo {
        /// The address of Redis.
        redis: std::net::SocketAddr,
    },
    /// Serves the node of the rows about sessions and limits.
    Node {
        /// The URL of a Redis; without one it is on the memory backend.
        redis: Option<String>,
    },
    /// Serves a ceiling: a bare server that a node is compared with.
    Ceiling {
        /// The kind of server.
        kind: ceiling::Kind,
        /// Response headers to send, `name: value`.
        #[arg(long)]
        header: Vec<String>,
    },
}

fn main() -> ExitCode {
    // Both sides have thousands of sockets, and child processes inherit the limit.
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        eprintln!("phalanx-bench: cannot raise the limit of file descriptors: {error}");
    }
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("phalanx-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Anyhow> {
    let runtime = match command {
        // One thread, as the nodes that it is compared with.
        Command::Ceiling { .. } | Command::Node { .. } => {
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?
        }
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
    };
    runtime.block_on(async {
        match command {
            Command::Ceiling { kind, header } => ceiling::serve(kind, &header).await.map(|()| ExitCode::SUCCESS),
            Command::Node { redis } => node::serve(redis).await.map(|()| ExitCode::SUCCESS),
            Command::Echo { redis } => ceiling::redis::echo(redis).await.map(|()| ExitCode::SUCCESS),
            Command::Compare { server, rows, rounds } => {
                let rows = if rows.is_empty() { Row::ALL.to_vec() } else { rows };
                let results = compare::all(server, &rows, compare::Effort::full(rounds)).await?;
                println!("{}", report::table(&results));
                Ok(if results.iter().all(report::Measured::within_gate) {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                })
            }
            Command::Instructions { base, server } => {
                let counted = instructions::all(&compare::tour(server)?, &base).await?;
                println!("{}", instructions::table(&counted));
                Ok(if counted.iter().all(|counted| counted.ratio() <= 1.01) {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                })
            }
            Command::Json { rounds } => {
                print!("{}", json::table(&json::all(rounds)));
                Ok(ExitCode::SUCCESS)
            }
            Command::Smoke { server } => {
                json::all(1);
                let results = compare::all(server, &Row::ALL, compare::Effort::smoke()).await?;
                println!("{} rows ran", results.len());
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}
