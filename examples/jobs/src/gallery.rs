//! Albums: a batch has a job for each photo, and its completion sums up which thumbnails there are.
//!
//! An album has the id of its batch. Jobs, batch and cache outlive a node, so an album goes on where its node is killed or
//! restarted. If that happens before its batch is sealed, the batch expires, and the completion says so.

use std::time::Duration;

use phalanx::Cache;
use phalanx::http::header::{HeaderValue, LOCATION};
use phalanx::jobs::{BatchOptions, BatchStage, BatchStatus, JobBatch};
use phalanx::prelude::*;
use phalanx::validator::Validate;

use crate::photos;
use crate::picture::Picture;

/// The room in which albums tell their progress.
const ROOM: &str = "albums";

/// The list of the ids of the albums that were made last, and how many it holds.
const LATEST: &str = "albums";
const KEPT: u64 = 10;

/// How long an album has for its thumbnails.
pub const DEADLINE: Duration = HOUR;

/// How long an album and its thumbnails are remembered.
const REMEMBERED: Duration = DAY;

/// The longest side of a thumbnail, in pixels.
const SIDE: usize = 32;

/// A photo.
#[input]
#[derive(Clone, Debug)]
pub struct Photo {
    /// Its name in the store of photos.
    #[validate(length(min = 1, max = 80))]
    pub name: String,
}

/// An album that is wanted.
#[input]
#[derive(Clone, Debug)]
pub struct NewAlbum {
    /// Its name.
    #[validate(length(min = 1, max = 40))]
    pub name: String,
    /// Its photos.
    #[validate(length(min = 1, max = 50), nested)]
    pub photos: Vec<Photo>,
}

/// An album as the page shows it.
#[output]
#[derive(Clone, Debug)]
pub struct Album {
    /// The id of its batch.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The names of its photos.
    pub photos: Vec<String>,
    /// `making`, then `done`, or `expired` if its time was up before.
    pub state: String,
    /// How many jobs have made a thumbnail.
    pub made: u64,
    /// How many jobs have ended without one.
    pub failed: u64,
    /// The photos without a thumbnail, once the album is over.
    pub missing: Vec<String>,
}

/// The id of an album.
#[input]
#[derive(Debug)]
pub struct AlbumId {
    /// That of its batch.
    pub id: String,
}

impl Album {
    fn new(batch: &JobBatch, input: &NewAlbum) -> Self {
        Self {
            id: batch.id().to_string(),
            name: input.name.clone(),
            photos: input.photos.iter().map(|photo| photo.name.clone()).collect(),
            state: "making".to_owned(),
            made: 0,
            failed: 0,
            missing: Vec::new(),
        }
    }

    /// Takes the numbers of its batch.
    fn count(&mut self, status: &BatchStatus) {
        self.made = status.done;
        self.failed = status.failed + status.deleted;
    }

    async fn save(&self, cache: &Cache) -> Result<(), ActionError> {
        cache.save(&key(&self.id), self, Some(REMEMBERED)).await
    }

    /// The album as it is now; `None` if it is not known, or not any more.
    async fn load(cache: &Cache, batch: &JobBatch) -> Result<Option<Self>, ActionError> {
        let Some(stored) = cache.load::<Self>(&key(batch.id())).await? else { return Ok(None) };
        let mut album = stored.value;
        if album.state == "making" {
            album.count(&batch.status().await?);
        }
        Ok(Some(album))
    }
}

fn key(album: &str) -> String {
    format!("album:{album}")
}

fn thumbnail_key(album: &str, photo: &str) -> String {
    format!("thumbnail:{album}:{photo}")
}

/// Makes an album: answers 202, with the album and the path of its status.
#[action(name = "makeAlbum", post = "/albums")]
pub async fn make_album(ctx: Context, input: NewAlbum) -> Result<Reply<Album>, ActionError> {
    let options = BatchOptions::new().completion::<finish_album>(input.clone())?.deadline(DEADLINE);
    let batch = ctx.tasks().create_batch(options).await?;
    let album = Album::new(&batch, &input);
    album.save(ctx.cache()).await?;
    if ctx.cache().push(LATEST, &album.id).await? > KEPT {
        ctx.cache().pop::<String>(LATEST).await?;
    }
    batch.add_many::<make_thumbnail>(input.photos, &EnqueueOptions::new()).await?;
    batch.seal().await?;
    let status = HeaderValue::try_from(format!("/api/albums/{}", album.id)).or_internal()?;
    Ok(Reply::new(album).status(StatusCode::ACCEPTED).header(LOCATION, status))
}

/// Makes the thumbnail of a photo. What is no picture today is none tomorrow, so it is not tried again.
#[task(queue = "thumbnails", attempts = 3, no_retry(invalid_input), deadline = "30s")]
pub async fn make_thumbnail(ctx: TaskContext, photo: Photo) -> Result<(), ActionError> {
    let album = ctx.batch().ok_or_else(|| ctx.cancel("the photo is in no album"))?;
    let bytes = photos::read(&photo.name).await;
    let thumbnail = Picture::decode(&bytes)?.shrink(SIDE).encode();
    ctx.cache().save(&thumbnail_key(album.id(), &photo.name), &thumbnail, Some(REMEMBERED)).await?;
    ctx.tasks().after::<tell_progress>(AlbumId { id: album.id().to_string() }).await?;
    Ok(())
}

/// Tells the pages how far an album is. This is a job that follows on that of a thumbnail, since a batch counts a job once it
/// has ended; the one that waits tells for all that end meanwhile. Pages read the albums after a gap, so a message that is
/// lost is no error.
#[task(unique, unique_until = "start")]
pub async fn tell_progress(ctx: TaskContext, input: AlbumId) -> Result<(), ActionError> {
    if let Some(album) = Album::load(ctx.cache(), &ctx.tasks().batch(input.id)).await? {
        let _ = ctx.rooms().say(ROOM, &album).await;
    }
    Ok(())
}

/// Sums up an album, once the jobs of all its photos have ended, or its time is up.
#[task]
pub async fn finish_album(ctx: TaskContext, input: NewAlbum) -> Result<(), ActionError> {
    let batch = ctx.batch().ok_or_else(|| ctx.cancel("it is no completion of an album"))?;
    let status = batch.status().await?;
    let mut album = Album::new(&batch, &input);
    album.count(&status);
    album.state = if status.stage == BatchStage::Expired { "expired" } else { "done" }.to_owned();
    for photo in &album.photos {
        if ctx.cache().load::<Vec<u8>>(&thumbnail_key(&album.id, photo)).await?.is_none() {
            album.missing.push(photo.clone());
        }
    }
    album.save(ctx.cache()).await?;
    let _ = ctx.rooms().say(ROOM, &album).await;
    Ok(())
}

/// Shows an album: its numbers while it is made, the photos without a thumbnail once it is over.
#[action(get = "/albums/{id}")]
pub async fn album(ctx: Context, input: AlbumId) -> Result<Album, ActionError> {
    Album::load(ctx.cache(), &ctx.tasks().batch(input.id)).await?.or_not_found()
}

/// The albums of the page.
#[output]
#[derive(Debug)]
pub struct Albums {
    /// The newest last.
    pub albums: Vec<Album>,
}

/// Lists the albums that were made last, the newest last.
#[action(get)]
pub async fn albums(ctx: Context) -> Result<Albums, ActionError> {
    let mut albums = Vec::new();
    for id in ctx.cache().list::<String>(LATEST, 0, KEPT).await? {
        albums.extend(Album::load(ctx.cache(), &ctx.tasks().batch(id)).await?);
    }
    Ok(Albums { albums })
}

/// A photo of an album.
#[input]
#[derive(Debug)]
pub struct PhotoOfAlbum {
    /// The id of the album.
    pub id: String,
    /// The name of the photo.
    pub photo: String,
}

/// Answers a thumbnail, as a bitmap file.
#[action(get = "/albums/{id}/{photo}", block(websocket))]
pub async fn thumbnail(ctx: Context, input: PhotoOfAlbum) -> Result<Body, ActionError> {
    let stored = ctx.cache().load::<Vec<u8>>(&thumbnail_key(&input.id, &input.photo)).await?.or_not_found()?;
    Ok(Body::bytes("image/bmp", stored.value))
}
