//! Exports: a job writes one, a page after the other, and tells how far it is.

use std::time::Duration;

use phalanx::Cache;
use phalanx::jobs::{AcceptedJob, JobView};
use phalanx::prelude::*;

/// The room in which exports tell their progress.
const ROOM: &str = "exports";

/// The list of the exports that were started last, and how many it holds.
const LATEST: &str = "exports";
const KEPT: u64 = 20;

/// How long a page takes.
const PAGE: Duration = Duration::from_millis(100);

/// How long an export's progress is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// An export that is wanted.
#[input]
#[derive(Clone, Debug)]
pub struct Export {
    /// Its name.
    #[validate(length(min = 1, max = 40))]
    pub name: String,
    /// How long it is.
    #[validate(range(min = 1, max = 500))]
    pub pages: u32,
}

/// An export as the page shows it.
#[output]
#[derive(Clone, Debug)]
pub struct Progress {
    /// The id of its job.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How long it is.
    pub pages: u32,
    /// The page that it has reached.
    pub page: u32,
    /// `waiting`, `running`, `done` or `failed`.
    pub state: String,
    /// The node that has it.
    pub node: Option<String>,
}

impl Progress {
    fn waiting(id: &str, export: &Export) -> Self {
        let Export { name, pages } = export.clone();
        Self { id: id.to_owned(), name, pages, page: 0, state: "waiting".to_owned(), node: None }
    }

    /// The progress that a job stored last.
    async fn load(cache: &Cache, id: &str) -> Result<Option<Self>, ActionError> {
        Ok(cache.load(&key(id)).await?.map(|stored| stored.value))
    }

    /// Stores it for those who look later, and tells the pages that look now. These read all exports after a gap, so an
    /// export does not fail for a message that is lost. Those who know the id of the job see it as the job's progress.
    async fn tell(&self, ctx: &TaskContext) -> Result<(), ActionError> {
        ctx.progress(&PageCount { page: self.page, pages: self.pages })?;
        ctx.cache().save(&key(&self.id), self, Some(REMEMBERED)).await?;
        let _ = ctx.rooms().say(ROOM, self).await;
        Ok(())
    }
}

/// How far an export is.
#[output]
#[derive(Clone, Copy, Debug)]
pub struct PageCount {
    /// The page that it has reached.
    pub page: u32,
    /// How long it is.
    pub pages: u32,
}

fn key(id: &str) -> String {
    format!("export:{id}")
}

/// The result of an export.
#[output]
#[derive(Clone, Copy, Debug)]
pub struct Exported {
    /// How many pages it has.
    pub pages: u32,
}

/// Writes an export, a page at a time.
#[task(queue = "exports", attempts = 3, tracked, on_failed = tell_failure)]
pub async fn export(ctx: TaskContext, input: Export) -> Result<Exported, ActionError> {
    let reached = Progress::load(ctx.cache(), ctx.id()).await?;
    let mut progress = reached.unwrap_or_else(|| Progress::waiting(ctx.id(), &input));
    progress.node = Some(ctx.node().id().to_owned());
    progress.state = "running".to_owned();
    progress.tell(&ctx).await?;
    while progress.page < input.pages {
        tokio::time::sleep(PAGE).await;
        progress.page += 1;
        progress.tell(&ctx).await?;
    }
    progress.state = "done".to_owned();
    progress.tell(&ctx).await?;
    Ok(Exported { pages: input.pages })
}

/// Tells the pages that an export has failed.
async fn tell_failure(ctx: TaskContext, _failure: TaskFailure) {
    if let Ok(Some(mut progress)) = Progress::load(ctx.cache(), ctx.id()).await {
        progress.state = "failed".to_owned();
        let _ = progress.tell(&ctx).await; // there is nobody left to tell of an error
    }
}

/// Starts an export: answers 202, with the path of its status.
#[action(name = "startExport", post = "/exports")]
pub async fn start_export(ctx: Context, input: Export) -> Result<Reply<AcceptedJob>, ActionError> {
    let job = ctx.tasks().enqueue::<export>(input.clone()).await?;
    let started = Progress::waiting(&job.id, &input);
    if ctx.cache().push(LATEST, &started).await? > KEPT {
        ctx.cache().pop::<Progress>(LATEST).await?;
    }
    ctx.accepted::<export_status>(&job)
}

/// The id of an export.
#[input]
#[derive(Debug)]
pub struct ExportId {
    /// That of its job.
    pub id: String,
}

/// Shows the status of an export: its pages while it runs, its result once it is done.
#[action(name = "exportStatus", get = "/exports/{id}")]
pub async fn export_status(ctx: Context, input: ExportId) -> Result<JobView, ActionError> {
    ctx.tasks().status(&input.id).await.map(JobView::from)
}

/// The exports of the page.
#[output]
#[derive(Debug)]
pub struct Exports {
    /// The newest last.
    pub exports: Vec<Progress>,
}

/// Lists the exports that were started last, the newest last.
#[action(get)]
pub async fn exports(ctx: Context) -> Result<Exports, ActionError> {
    let mut exports = ctx.cache().list::<Progress>(LATEST, 0, KEPT).await?;
    for export in &mut exports {
        if let Some(progress) = Progress::load(ctx.cache(), &export.id).await? {
            *export = progress;
        }
    }
    Ok(Exports { exports })
}
