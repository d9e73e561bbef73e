use phalanx::prelude::*;

#[task(limit = 0, rate = "100")]
async fn without_jobs(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task(limit = "5", rate = 100)]
async fn other_values(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task(limit = 5, limit = 6, rate = "0/s")]
async fn twice(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task(rate = "10/minute", fair_by = 5)]
async fn other_unit(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").tasks(tasks![without_jobs, other_values, twice, other_unit]);
}
