//! What might have been meant, and why a daemon does not understand: hints after a refusal.

use hyper::Method;
use serde_json::Value;

use crate::ctl::client::{Client, Failure};
use crate::wire::{ImageView, PluginList, SystemInfo, VmView, VolumeView};

/// So many characters may have one that is missing, wrong, too many, or in its neighbor's place.
const CHARACTERS_PER_SLIP: usize = 3;

const NO_BODY: Option<&()> = None;

/// The word that is most like `word`, if one is.
pub fn nearest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    let slips_max = (word.chars().count() / CHARACTERS_PER_SLIP).max(1);
    let rated = words.iter().map(|one| (strsim::osa_distance(word, one), *one));
    let near = rated.filter(|(slips, _)| *slips <= slips_max);
    near.min_by_key(|(slips, _)| *slips).map(|(_, one)| one)
}

/// Adds a hint to a refusal that has none, where the daemon can be asked for it.
pub async fn hint(client: &Client, failure: Failure) -> Failure {
    if failure.hint.is_some() {
        return failure;
    }
    let hint = match failure.code.as_str() {
        "vm_not_found" | "plugin_not_found" | "image_not_found" | "volume_not_found" => {
            let names = names(client, &failure.code).await.unwrap_or_default();
            let words: Vec<&str> = names.iter().map(String::as_str).collect();
            let typed = failure.message.split('"').nth(1).unwrap_or_default();
            nearest(typed, &words).map(|near| format!("did you mean {near}?"))
        }
        "route_not_found" | "method_not_allowed" => other_version(client).await,
        "invalid_body" | "invalid_query" if failure.message.contains("unknown field") => {
            other_version(client).await
        }
        _ => None,
    };
    Failure { hint, ..failure }
}

async fn names(client: &Client, code: &str) -> Result<Vec<String>, Failure> {
    Ok(match code {
        "vm_not_found" => {
            let all: Vec<VmView> = client.json(Method::GET, "/api/v1/vms", NO_BODY).await?;
            all.into_iter().map(|vm| vm.name).collect()
        }
        "plugin_not_found" => {
            let all: PluginList = client.json(Method::GET, "/api/v1/plugins", NO_BODY).await?;
            all.plugins
        }
        "image_not_found" => {
            let all: Vec<ImageView> = client.json(Method::GET, "/api/v1/images", NO_BODY).await?;
            all.into_iter().map(|image| image.reference).collect()
        }
        _ => {
            let all: Vec<VolumeView> = client.json(Method::GET, "/api/v1/volumes", NO_BODY).await?;
            all.into_iter().map(|volume| volume.name).collect()
        }
    })
}

async fn other_version(client: &Client) -> Option<String> {
    let ours = env!("CARGO_PKG_VERSION");
    let info: Value = client.json(Method::GET, "/api/v1/system/info", NO_BODY).await.ok()?;
    let theirs = serde_json::from_value::<SystemInfo>(info).map(|info| info.version);
    let theirs = theirs.unwrap_or_else(|_| "of an unknown version".to_owned());
    (theirs != ours)
        .then(|| format!("the daemon is {theirs}, this program {ours}: bring both to one version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_if_it_is_near() {
        let names = ["web", "worker", "database"];
        assert_eq!(nearest("wbe", &names), Some("web"));
        assert_eq!(nearest("wrker", &names), Some("worker"));
        assert_eq!(nearest("databse", &names), Some("database"));
        assert_eq!(nearest("xyz", &names), None);
        assert_eq!(nearest("x", &[]), None);
        assert_eq!(nearest("", &names), None);
    }
}
