//! Runs the desk.

fn main() -> phalanx::ExitCode {
    desk::app().run()
}
