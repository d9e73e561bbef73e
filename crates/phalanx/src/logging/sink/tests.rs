use std::fs::File;
use std::io::{PipeReader, Read, Write, pipe};
use std::path::Path;

use tokio::time::Instant;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

const PLAIN: LineFormat = LineFormat::Human { colour: false };

fn sink_of(output: Output) -> Sink {
    Sink::start("test", output, PLAIN).unwrap()
}

/// A sink on a pipe that is full already.
fn stuck() -> (Sink, PipeReader) {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&[b'-'; 65_536]).unwrap(); // the size of a pipe: one byte more would wait
    (sink_of(Output::stream(&writer).unwrap()), reader)
}

fn log(sink: &Sink, line: &str) {
    let mut sink = sink;
    sink.write_all(line.as_bytes()).unwrap();
}

#[test]
fn a_stuck_reader_delays_neither_lines_nor_the_end_and_reads_the_gap_and_the_reason_later() {
    let (sink, mut reader) = stuck();
    let line = format!("{}\n", "x".repeat(1023));
    let start = Instant::now();
    for _ in 0..10_000 {
        log(&sink, &line);
    }
    sink.push_text("error: the reason\n");
    sink.flush(Duration::from_millis(50));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let dropped = sink.dropped();
    assert_eq!(dropped, 10_000 - 8 * 1024, "eight mebibytes wait");

    let read = thread::spawn(move || {
        let mut text = Vec::new();
        let mut buffer = [0; 65_536];
        while !text.ends_with(b"error: the reason\n") {
            let count = reader.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(text).unwrap()
    });
    sink.flush(LIMIT);
    let text = read.join().unwrap();
    let lines: Vec<&str> = text.trim_start_matches('-').lines().collect();
    let [xs @ .., gap, reason] = &lines[..] else { panic!("too few lines") };
    assert!(xs.len() == 8 * 1024 && xs.iter().all(|x| x.len() == 1023));
    assert!(gap.ends_with(&format!(" WARN phalanx::logging: log lines were dropped here lines={dropped}")), "{gap}");
    assert_eq!(*reason, "error: the reason");
}

#[test]
fn lines_to_a_closed_pipe_are_counted() {
    let (reader, writer) = pipe().unwrap();
    let sink = sink_of(Output::stream(&writer).unwrap());
    drop(reader);
    for _ in 0..100 {
        log(&sink, "line\n");
    }
    sink.flush(LIMIT);
    assert_eq!(sink.dropped(), 100);
}

#[test]
fn lines_to_a_full_disk_are_counted_and_announced_once_it_takes_lines_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.log");
    std::os::unix::fs::symlink(Path::new("/dev/full"), &path).unwrap();
    let sink = sink_of(Output::append_to(folder.path(), "node.log", 7).unwrap());
    log(&sink, "one\n");
    log(&sink, "two\n");
    sink.flush(LIMIT);
    assert_eq!(sink.dropped(), 2);
    std::fs::remove_file(&path).unwrap();
    File::create(&path).unwrap();
    sink.reopen();
    log(&sink, "three\n");
    sink.flush(LIMIT);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].ends_with("lines=2") && lines[1] == "three", "{text}");
    assert_eq!(sink.dropped(), 2);
}

#[test]
fn a_pipe_that_another_process_made_non_blocking_loses_no_line() {
    let (mut reader, writer) = pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    let sink = sink_of(Output::stream(&writer).unwrap());
    let line = format!("{}\n", "y".repeat(999));
    for _ in 0..500 {
        log(&sink, &line);
    }
    let mut text = vec![0; 500 * 1000];
    reader.read_exact(&mut text).unwrap();
    sink.flush(LIMIT);
    assert!(text.chunks(1000).all(|read| read == line.as_bytes()));
    assert_eq!(sink.dropped(), 0);
}

/// The cost of the queue alone: a layer of tracing-subscriber formats the line before, in about a microsecond.
/// `cargo test -p phalanx --lib -- --nocapture a_line_costs` prints it; the bound is three times the one of the design.
#[test]
fn a_line_costs_the_thread_that_logs_it_less_than_three_microseconds() {
    let line = [b'x'; 200];
    // The median of a hundred runs, which together are fewer lines than the queue holds: the scheduler interrupts some.
    let measure = |sink: &Sink| {
        let mut writer = sink;
        let mut run = |_| {
            let start = Instant::now();
            for _ in 0..100 {
                writer.write_all(&line).unwrap();
            }
            start.elapsed() / 100
        };
        let mut runs: Vec<Duration> = (0..100).map(&mut run).collect();
        runs.sort_unstable();
        runs[50]
    };
    let flowing = measure(&sink_of(Output::stream(File::create("/dev/null").unwrap()).unwrap()));
    let (sink, _reader) = stuck();
    let (waiting, full) = (measure(&sink), measure(&sink));
    println!("to queue a line takes {flowing:?}, {waiting:?} while its sink is stuck, {full:?} as its queue fills up");
    assert!(flowing.max(waiting).max(full) < Duration::from_micros(3));
}
