use phalanx::prelude::*;

#[task(queue = "a b", attempts = 0, backoff = "5", jitter = 2.0, no_retry(missing), on_failed = "report", retries = 3)]
async fn send_mail(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[task(attempts = "3", max_backoff = 5, jitter = 1, no_retry, blocking = true)]
fn clean(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task(unique = "to", unique_until = "never", unique_scope = task, unique_for = "0")]
async fn sweep(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task]
async fn report(_ctx: TaskContext) {}

fn main() {
    let _ = App::new("ui").tasks(tasks![send_mail, clean, sweep, report]);
}
