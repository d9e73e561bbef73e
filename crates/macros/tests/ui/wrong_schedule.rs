use phalanx::prelude::*;

#[task(every = "99ms", overlap = "sometimes", catch_up = "all")]
async fn often(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task(every = "10s", cron = "* * * * * *")]
async fn twice(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task(timezone = "Europe/Berlin", overlap = "skip", catch_up = "last")]
async fn never(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task(every = "0")]
async fn always(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").tasks(tasks![often, twice, never, always]);
}
