use std::io::Read;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use tower::ServiceExt;

use super::*;

async fn ask(path: &str, headers: &[(HeaderName, &str)]) -> Response {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    router::<()>().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn body(response: Response) -> Bytes {
    to_bytes(response.into_body(), usize::MAX).await.unwrap()
}

fn header_of(response: &Response, name: HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn all_that_the_page_names_is_there() {
    let page = ask(HOME, &[]).await;
    assert_eq!(header_of(&page, header::CACHE_CONTROL), "no-cache");
    let text = String::from_utf8(body(page).await.to_vec()).unwrap();
    let named: Vec<&str> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|start| text.split(start).skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(named.len(), 3, "a script, a style, an icon: {text}");
    for name in named {
        let answer = ask(&format!("{HOME}{name}"), &[]).await;
        assert_eq!(answer.status(), StatusCode::OK, "{name}");
        let is_hashed = name != "icon.svg";
        assert_eq!(header_of(&answer, header::CACHE_CONTROL).contains("immutable"), is_hashed);
    }
    assert!(!text.contains("://"), "nothing is fetched from elsewhere");
}

#[tokio::test]
async fn every_answer_is_guarded() {
    for path in ["/ui", "/ui/", "/ui/icon.svg"] {
        let answer = ask(path, &[]).await;
        let policy = header_of(&answer, header::CONTENT_SECURITY_POLICY);
        let scripts = policy.split(';').find(|part| part.contains("script-src")).unwrap();
        assert_eq!(scripts.trim(), "script-src 'self'", "{path}");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(
            header_of(&answer, HeaderName::from_static("x-content-type-options")),
            "nosniff"
        );
        assert_eq!(header_of(&answer, header::REFERRER_POLICY), "no-referrer");
    }
}

#[tokio::test]
async fn files_come_packed_and_once() {
    let plain = ask("/ui/icon.svg", &[(header::ACCEPT_ENCODING, "br, gzip;q=0")]).await;
    assert_eq!(header_of(&plain, header::CONTENT_ENCODING), "");
    let tag = header_of(&plain, header::ETAG).to_owned();
    let packed = ask("/ui/icon.svg", &[(header::ACCEPT_ENCODING, "br, gzip;q=0.5")]).await;
    assert_eq!(header_of(&packed, header::CONTENT_ENCODING), "gzip");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*body(packed).await).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, body(plain).await);
    let known = ask("/ui/icon.svg", &[(header::IF_NONE_MATCH, &format!("\"x\", {tag}"))]).await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    assert!(body(known).await.is_empty());
}

#[tokio::test]
async fn browsers_are_led_to_the_page() {
    let browser = ask("/", &[(header::ACCEPT, "text/html,*/*;q=0.8")]).await;
    assert_eq!(browser.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(header_of(&browser, header::LOCATION), HOME);
    assert_eq!(ask("/", &[(header::ACCEPT, "*/*")]).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask("/ui/no.js", &[]).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask("/ui/..%2fmod.rs", &[]).await.status(), StatusCode::NOT_FOUND);
}

#[test]
fn the_files_are_small() {
    let total: usize = Files::open().0.values().map(|file| file.plain.len()).sum();
    assert!(total < 600 * 1024, "{total} bytes");
}
