use phalanx::prelude::*;

struct Mail;

#[task]
async fn send_mail(_ctx: TaskContext, _input: Mail) -> Result<(), ActionError> {
    Ok(())
}

#[task(on_failed = report)]
async fn clean(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

async fn report(_ctx: TaskContext) {}

fn main() {
    let _ = App::new("ui").tasks(tasks![send_mail, clean]);
}
