//! Runs the application.

fn main() -> phalanx::ExitCode {
    hello::app().run()
}
