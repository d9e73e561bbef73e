//! Runs the page of exports.

fn main() -> phalanx::ExitCode {
    jobs::app().run()
}
