//! Runs the chat.

fn main() -> phalanx::ExitCode {
    chat::app().run()
}
