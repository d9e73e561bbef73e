//! Clients that send rubbish, too much or nothing, and those that do not read.

use std::io::{BufRead, BufReader, Write};

use tempfile::TempDir;

use super::*;

/// A server, and the folder of its socket.
fn server() -> (ControlServer, PathBuf, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cluster.sock");
    (ControlServer::listen(Some(path.clone())).unwrap(), path, folder)
}

fn connect(path: &Path, text: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(text).unwrap();
    stream
}

/// Accepts a client, and reads what it has sent.
fn serve(server: &mut ControlServer, now: Duration) -> Vec<(usize, ControlRequest)> {
    server.serve(now);
    server.serve(now)
}

fn line(stream: UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn requests_are_read_in_pieces_and_ended_by_their_event() {
    let (mut server, path, _folder) = server();
    let mut client = connect(&path, b"{\"request\":\"sc");
    assert_eq!(serve(&mut server, Duration::ZERO), []);
    client.write_all(b"ale\",\"workers\":3}\n").unwrap();
    assert_eq!(server.serve(Duration::ZERO), [(0, ControlRequest::Scale { workers: 3 })]);
    assert!(server.wait_for(0, ControlWait::Settled));
    server.report("a step");
    server.end_all(ControlWait::Roll(1), &ControlReply::Done { text: "no".to_owned() });
    assert!(server.is_awaited(ControlWait::Settled));
    server.end_all(ControlWait::Settled, &ControlReply::Done { text: "yes".to_owned() });
    server.serve(Duration::ZERO);
    assert!(server.clients.is_empty(), "a client that was replied to is disconnected");
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "{\"reply\":\"progress\",\"text\":\"a step\"}\n{\"reply\":\"done\",\"text\":\"yes\"}\n");
}

#[test]
fn rubbish_is_refused_with_a_reason_and_too_much_of_it_without() {
    let (mut server, path, _folder) = server();
    let rubbish = connect(&path, b"{\"request\":\"dance\"}\n");
    assert_eq!(serve(&mut server, Duration::ZERO), []);
    assert!(line(rubbish).contains("does not know this request"));
    let long = connect(&path, &[b' '; MAX_REQUEST + 1]);
    serve(&mut server, Duration::ZERO);
    serve(&mut server, Duration::ZERO);
    assert!(server.clients.is_empty());
    drop(long);
}

#[test]
fn a_silent_client_is_disconnected_and_one_that_waits_is_not() {
    let (mut server, path, _folder) = server();
    let silent = connect(&path, b"");
    let waiting = connect(&path, b"{\"request\":\"stop\"}\n");
    assert_eq!(serve(&mut server, Duration::ZERO), [(1, ControlRequest::Stop)]);
    assert!(server.wait_for(1, ControlWait::Stop));
    server.serve(SOON + Duration::from_millis(1));
    assert_eq!(server.clients.len(), 1);
    drop(waiting);
    server.serve(SOON);
    assert!(server.clients.is_empty());
    assert_eq!(line(silent), "");
}

#[test]
fn a_client_that_does_not_read_is_disconnected_at_the_bound() {
    let (mut server, path, _folder) = server();
    let _deaf = connect(&path, b"{\"request\":\"stop\"}\n");
    serve(&mut server, Duration::ZERO);
    assert!(server.wait_for(0, ControlWait::Stop));
    let text = "a".repeat(64 * 1024);
    let mut reports = 0;
    while !server.clients.is_empty() {
        server.report(&text);
        server.serve(Duration::ZERO);
        reports += 1;
        assert!(reports < 100, "nothing ends it");
    }
}

#[test]
fn the_clients_beyond_the_bound_wait() {
    let (mut server, path, _folder) = server();
    let mut clients: Vec<UnixStream> = (0..=MAX_CLIENTS).map(|_| connect(&path, b"")).collect();
    server.serve(Duration::ZERO);
    assert_eq!(server.clients.len(), MAX_CLIENTS);
    assert_eq!(server.interests(Duration::ZERO).count(), MAX_CLIENTS, "the listener is left alone");
    drop(clients.remove(0));
    server.serve(Duration::ZERO);
    assert_eq!(server.clients.len(), MAX_CLIENTS);
}

#[test]
fn the_socket_is_private_replaces_one_that_is_left_over_and_is_removed() {
    let (first, path, _folder) = server();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::mem::forget(first); // as if its process had been killed
    let second = ControlServer::listen(Some(path.clone())).unwrap();
    drop(second);
    assert!(!path.exists());
    let long = path.with_file_name("a".repeat(100));
    assert!(ControlServer::listen(Some(long)).unwrap_err().to_string().contains("more than 107 bytes"));
}

#[test]
fn clients_that_wait_for_workers_lock_no_other_out_and_have_a_bound() {
    let (mut server, path, _folder) = server();
    let mut rolls = Vec::new();
    for number in 0..=MAX_COMMANDS {
        rolls.push(connect(&path, b"{\"request\":\"roll\"}\n"));
        let requests = serve(&mut server, Duration::ZERO);
        assert_eq!(requests, [(number, ControlRequest::Roll)]);
        assert_eq!(server.wait_for(number, ControlWait::Roll(1)), number < MAX_COMMANDS);
    }
    server.end(MAX_COMMANDS, &ControlReply::Failed { reason: "no".to_owned() });
    assert_eq!((server.waiting(), server.beyond), (MAX_COMMANDS, 1));
    let status = connect(&path, b"{\"request\":\"status\"}\n");
    assert_eq!(serve(&mut server, Duration::ZERO), [(MAX_COMMANDS, ControlRequest::Status)]);
    server.end(MAX_COMMANDS, &ControlReply::Done { text: "yes".to_owned() });
    assert!(line(status).contains("yes"));
}

#[test]
fn a_client_that_has_sent_all_gets_its_reply_and_one_that_has_left_is_dropped() {
    let (mut server, path, _folder) = server();
    let half_closed = connect(&path, b"{\"request\":\"roll\"}\n");
    half_closed.shutdown(std::net::Shutdown::Write).unwrap();
    let left = connect(&path, b"{\"request\":\"roll\"}\n");
    assert_eq!(serve(&mut server, Duration::ZERO).len(), 2);
    assert!(server.wait_for(0, ControlWait::Roll(1)) && server.wait_for(1, ControlWait::Roll(1)));
    server.serve(Duration::ZERO);
    assert_eq!(server.clients.len(), 2);
    let read = |(_, flags): (BorrowedFd<'_>, PollFlags)| flags.contains(PollFlags::IN);
    assert_eq!(
        server.interests(Duration::ZERO).filter(|interest| read(*interest)).count(),
        2,
        "no end is polled again"
    );
    drop(left);
    server.serve(Duration::ZERO);
    assert_eq!(server.clients.len(), 1);
    server.end_all(ControlWait::Roll(1), &ControlReply::Done { text: "yes".to_owned() });
    server.serve(Duration::ZERO);
    assert!(line(half_closed).contains("yes"));
    let _unfinished = connect(&path, b"{\"request\":").shutdown(std::net::Shutdown::Write);
    serve(&mut server, Duration::ZERO);
    server.serve(Duration::ZERO);
    assert!(server.clients.is_empty());
}

#[test]
fn a_client_that_does_not_read_its_reply_is_disconnected() {
    let (mut server, path, _folder) = server();
    let _deaf = connect(&path, b"{\"request\":\"status\"}\n");
    assert_eq!(serve(&mut server, Duration::ZERO).len(), 1);
    server.end(0, &ControlReply::Done { text: "a".repeat(900 * 1024) });
    server.serve(SOON);
    assert_eq!(server.clients.len(), 1);
    server.serve(SOON + Duration::from_millis(1));
    assert!(server.clients.is_empty());
}
