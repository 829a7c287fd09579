//! Operations on images.

use axum::http::Method;

use crate::api::images;
use crate::api::operations::{Access, Answer, Body, Hints, Operation, Skin, of};
use crate::model::Scope;
use crate::wire::{ImageDetailsView, ImageView, PruneImages, PrunedView, PullImage};

const ARCHIVE: Skin = Skin::Absent("a model cannot hold an archive");

/// See the folder's head.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "listImages",
        title: "List images",
        description: "All images that are here, with digests and sizes.",
        method: Method::GET,
        path: "/api/v1/images",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<Vec<ImageView>>),
        tool: Skin::As("image_list"),
        verb: Skin::As("images ls"),
    },
    Operation {
        id: "pullImage",
        title: "Pull an image",
        description: "Brings an image from a registry and makes a root of it; if_missing=true \
                      takes the one that is here.",
        method: Method::POST,
        path: "/api/v1/images/pull",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints { idempotent: true, open_world: true, ..Hints::ADDS },
        query: None,
        body: Some(Body::Json(of::<PullImage>)),
        answer: Answer::Json(200, of::<ImageView>),
        tool: Skin::As("image_pull"),
        verb: Skin::As("images pull"),
    },
    Operation {
        id: "importImages",
        title: "Import images",
        description: "Takes images from an archive of docker save or an OCI layout; the body \
                      is the archive.",
        method: Method::POST,
        path: "/api/v1/images/import",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints::ADDS,
        query: Some(of::<images::ImportQuery>),
        body: Some(Body::Bytes),
        answer: Answer::Json(200, of::<Vec<ImageView>>),
        tool: ARCHIVE,
        verb: Skin::As("images import"),
    },
    Operation {
        id: "pruneImages",
        title: "Remove unused images",
        description: "Removes what no image and no VM needs; all=true also images that no VM \
                      runs; dry_run=true only says what.",
        method: Method::POST,
        path: "/api/v1/images/prune",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints::DESTROYS,
        query: None,
        body: Some(Body::Json(of::<PruneImages>)),
        answer: Answer::Json(200, of::<Vec<PrunedView>>),
        tool: Skin::As("image_prune"),
        verb: Skin::As("images prune"),
    },
    Operation {
        id: "inspectImage",
        title: "Look at an image",
        description: "An image with its configuration and layers.",
        method: Method::GET,
        path: "/api/v1/images/{*name}",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<ImageDetailsView>),
        tool: Skin::As("image_get"),
        verb: Skin::As("images inspect"),
    },
    Operation {
        id: "removeImage",
        title: "Remove an image",
        description: "Removes an image that no VM runs.",
        method: Method::DELETE,
        path: "/api/v1/images/{*name}",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints::DESTROYS,
        query: None,
        body: None,
        answer: Answer::Empty(204),
        tool: Skin::As("image_remove"),
        verb: Skin::As("images rm"),
    },
];
