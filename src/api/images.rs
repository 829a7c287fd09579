//! `/api/v1/images`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::api::body::unless_still;
use crate::api::error::Refusal;
use crate::api::view;
use crate::model::ImageReference;
use crate::orchestrator::{
    Credentials, Error, ImageDetails, Job, Orchestrator, Progress, ProgressSender,
};
use crate::wire::{
    ImageDetailsView, ImageLayerView, PruneImages, PrunedView, PullImage, RegistryAuth,
};

/// What a client prefers, and what of it is done (RFC 7240).
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Where work can be looked at that is answered at its end.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");
/// Between two events of progress.
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// `GET /api/v1/images`.
///
/// # Errors
/// A problem.
pub async fn list(State(orchestrator): State<Orchestrator>) -> Result<impl IntoResponse, Refusal> {
    let images = orchestrator.list_images().await?;
    Ok(Json(images.iter().map(view::image).collect::<Vec<_>>()))
}

/// `GET /api/v1/images/{name}`.
///
/// # Errors
/// A problem.
pub async fn inspect(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Json<ImageDetailsView>, Refusal> {
    let ImageDetails { image, run, layers } = orchestrator.inspect_image(&name).await?;
    let layer = |(digest, bytes)| ImageLayerView { digest, bytes };
    Ok(Json(ImageDetailsView {
        image: view::image(&image),
        config: serde_json::to_value(run).unwrap_or_default(),
        layers: layers.into_iter().map(layer).collect(),
    }))
}

/// `DELETE /api/v1/images/{name}`.
///
/// # Errors
/// A problem.
pub async fn remove(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    orchestrator.remove_image(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/images/prune`.
///
/// # Errors
/// A problem.
pub async fn prune(
    State(orchestrator): State<Orchestrator>,
    body: Result<Json<PruneImages>, JsonRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let Json(PruneImages { all, dry_run }) = body?;
    let pruned = orchestrator.prune_images(all, dry_run).await?;
    let view = |one: crate::orchestrator::Pruned| PrunedView {
        kind: one.kind.to_owned(),
        name: one.name,
        bytes: one.bytes,
    };
    Ok(Json(pruned.into_iter().map(view).collect::<Vec<_>>()))
}

/// `POST /api/v1/images/pull`.
///
/// # Errors
/// A problem.
pub async fn pull(
    State(orchestrator): State<Orchestrator>,
    headers: HeaderMap,
    body: Result<Json<PullImage>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(PullImage { reference, auth, if_missing }) = body?;
    let reference = ImageReference::try_from(reference.as_str()).map_err(Error::from)?;
    let credentials = auth.map(credentials).transpose()?;
    let job = orchestrator.begin_job("image.pull", &reference.to_string())?;
    answer(&headers, job, async move |told| {
        let image = orchestrator.pull_image(reference, credentials, if_missing, told).await?;
        Ok(view::image(&image))
    })
    .await
}

/// Query of an import.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportQuery {
    reference: Option<String>,
}

/// `POST /api/v1/images/import`: the body is the archive.
///
/// # Errors
/// A problem.
pub async fn import(
    State(orchestrator): State<Orchestrator>,
    query: Result<Query<ImportQuery>, QueryRejection>,
    mut headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let Query(ImportQuery { reference }) = query?;
    // An answer before the archive has come would end its sending.
    headers.remove(PREFER);
    let reference = reference.as_deref().map(ImageReference::try_from).transpose();
    let reference = reference.map_err(Error::from)?;
    // An import keeps the store from being cleaned: it must not wait for a client gone quiet.
    let archive = unless_still(body).into_data_stream();
    let subject = reference.as_ref().map_or("an archive".to_owned(), ToString::to_string);
    let job = orchestrator.begin_job("image.import", &subject)?;
    answer(&headers, job, async move |told| {
        let images = orchestrator.import_images(archive, reference, told).await?;
        Ok(images.iter().map(view::image).collect::<Vec<_>>())
    })
    .await
}

fn credentials(auth: RegistryAuth) -> Result<Credentials, Refusal> {
    match auth {
        RegistryAuth { token: Some(token), username: None, password: None } => {
            Ok(Credentials::Bearer(token))
        }
        RegistryAuth { token: None, username: Some(username), password: Some(password) } => {
            Ok(Credentials::Basic { username, password })
        }
        _ => {
            let text = "auth: either username and password, or token";
            Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", text))
        }
    }
}

/// What a task of its own gives.
///
/// # Errors
/// The work's.
pub fn done<T>(outcome: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    outcome.unwrap_or(Err(Error::Internal("work that takes long panicked")))
}

/// Whether the client wants to look after the work itself (RFC 7240, 4.1).
fn wants_async(headers: &HeaderMap) -> bool {
    let words = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    words.flat_map(|value| value.split(',')).any(|word| word.trim() == "respond-async")
}

/// Answers at the end; or, if the client takes server-sent events, with `progress` and then `done` or
/// `error`; or, if it asks for that, at once with where the operation is. The work goes on when the
/// client goes.
///
/// # Errors
/// A problem, before any event.
pub async fn answer<T, F>(
    headers: &HeaderMap,
    job: Job,
    work: impl FnOnce(ProgressSender) -> F,
) -> Result<Response, Refusal>
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let (id, told) = (job.id(), job.progress());
    let heard = told.subscribe();
    let work = tokio::spawn(job.run(work(told)));
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let place = format!("/api/v1/operations/{id}");
    if wants_async(headers) {
        // It goes on by itself.
        drop(work);
        let applied = (PREFERENCE_APPLIED, "respond-async".to_owned());
        return Ok((StatusCode::ACCEPTED, [(header::LOCATION, place), applied]).into_response());
    }
    let place = [(OPERATION_LOCATION, place)];
    if !accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        return Ok((place, Json(done(work.await)?)).into_response());
    }
    let work = Box::pin(async { done(work.await) });
    Ok((place, Sse::new(events(heard, work)).keep_alive(KeepAlive::default())).into_response())
}

type Work<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// What is left of the stream of events; none after the last one.
struct Following<T> {
    heard: watch::Receiver<Progress>,
    work: Work<T>,
    quiet_until: Instant,
}

fn events<T: Serialize + Send + 'static>(
    heard: watch::Receiver<Progress>,
    work: Work<T>,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let following = Following { heard, work, quiet_until: Instant::now() };
    futures_util::stream::unfold(Some(following), async |following| {
        let mut following = following?;
        let (heard, quiet_until) = (&mut following.heard, following.quiet_until);
        let changed = async {
            tokio::time::sleep_until(quiet_until).await;
            heard.changed().await.map(|()| *heard.borrow_and_update())
        };
        let (kind, data, rest) = tokio::select! {
            biased;
            outcome = &mut following.work => match outcome {
                Ok(value) => ("done", serde_json::to_value(value), None),
                Err(error) => ("error", serde_json::to_value(Refusal::from(error).problem()), None),
            },
            Ok(now) = changed => {
                following.quiet_until = Instant::now() + EVENT_INTERVAL;
                ("progress", serde_json::to_value(view::progress(&now)), Some(following))
            }
        };
        let data = data.unwrap_or_default().to_string();
        Some((Ok(Event::default().event(kind).data(data)), rest))
    })
}
