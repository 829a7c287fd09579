//! Table `images`, and how a VM's image is written into its row.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::model::{Digest, Image, ImageRoot, Overlay};
use crate::store::{Store, StoreError, sqlite};

impl Store {
    /// Stores an image, in place of one of the same name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_image(&self, image: Image) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            tx.execute(
                "INSERT OR REPLACE INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    image.reference,
                    image.manifest.hex(),
                    image.config.hex(),
                    image.root.hex(),
                    number(image.root_bytes),
                    number(image.layer_bytes),
                    image.created_at_ms
                ],
            )
            .map(drop)
            .map_err(sqlite("store an image"))
        })
        .await
    }

    /// Removes an image; that there is none is no failure.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_image(&self, reference: String) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let deleted = tx.execute("DELETE FROM images WHERE reference = ?1", [reference]);
            deleted.map(drop).map_err(sqlite("delete an image"))
        })
        .await
    }

    /// All images by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_images(&self) -> Result<Vec<Image>, StoreError> {
        self.transact(|tx| {
            let step = || sqlite("list images");
            let mut statement =
                tx.prepare("SELECT * FROM images ORDER BY reference").map_err(step())?;
            let rows = statement.query_map([], |row| Ok(read(row))).map_err(step())?;
            rows.map(|row| row.map_err(step())?).collect()
        })
        .await
    }
}

fn read(row: &Row<'_>) -> Result<Image, StoreError> {
    let step = || sqlite("read an image");
    let digest = |index: usize| {
        let text: String = row.get(index).map_err(step())?;
        Digest::from_hex(&text).ok_or_else(|| StoreError::Corrupt("digest".to_owned()))
    };
    let bytes = |index: usize| {
        let number: i64 = row.get(index).map_err(step())?;
        u64::try_from(number).map_err(|_| StoreError::Corrupt("bytes".to_owned()))
    };
    Ok(Image {
        reference: row.get(0).map_err(step())?,
        manifest: digest(1)?,
        config: digest(2)?,
        root: digest(3)?,
        root_bytes: bytes(4)?,
        layer_bytes: bytes(5)?,
        created_at_ms: row.get(6).map_err(step())?,
    })
}

#[derive(Serialize, Deserialize)]
struct Text {
    reference: String,
    root: String,
    folders: Vec<String>,
    /// Absent: in the guest's memory.
    overlay_mib: Option<u64>,
}

/// A VM's image as its row has it.
pub fn to_text(image: Option<&ImageRoot>) -> String {
    let Some(image) = image else { return String::new() };
    let text = Text {
        reference: image.reference.clone(),
        root: image.root.hex(),
        folders: image.folders.clone(),
        overlay_mib: match image.overlay {
            Overlay::Persistent { mib } => Some(mib),
            Overlay::Ephemeral => None,
        },
    };
    serde_json::to_string(&text).unwrap_or_default()
}

/// The image that a row has.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn from_text(text: &str) -> Result<Option<ImageRoot>, StoreError> {
    if text.is_empty() {
        return Ok(None);
    }
    let corrupt = || StoreError::Corrupt("image".to_owned());
    let text: Text = serde_json::from_str(text).map_err(|_| corrupt())?;
    Ok(Some(ImageRoot {
        reference: text.reference,
        root: Digest::from_hex(&text.root).ok_or_else(corrupt)?,
        folders: text.folders,
        overlay: match text.overlay_mib {
            Some(mib) => Overlay::Persistent { mib },
            None => Overlay::Ephemeral,
        },
    }))
}
