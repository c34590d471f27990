//! Every endpoint there is, called by those who may not call it.

use atoll_api::{Access, Route, all_routes};
use atoll_node::Role;
use atoll_tests::harness::{Client, TestNode};

/// The path with an id of nothing in the place of each name in braces.
fn filled(path: &str) -> String {
    let part = |part: &str| {
        if part.starts_with('{') {
            "01890a5d-ac96-774b-bcce-b302099a8057".into()
        } else {
            part.to_owned()
        }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

async fn status(client: &Client, route: &Route) -> u16 {
    let has_body = matches!(route.method.as_str(), "POST" | "PUT" | "PATCH");
    let body: &[u8] = if has_body { b"{}" } else { b"" };
    let json = [("content-type", "application/json")];
    client.send(route.method.as_str(), &filled(route.path), &json, body).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_that_is_not_public_turns_a_stranger_away() {
    let node = TestNode::start().await;
    let stranger = node.stranger();
    let forged = stranger.with_token("eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.");
    let mut walked = 0;
    for route in all_routes().iter().filter(|route| route.access != Access::Public) {
        assert_eq!(status(&stranger, route).await, 401, "{} {}", route.method, route.path);
        assert_eq!(
            status(&forged, route).await,
            401,
            "{} {} with alg none",
            route.method,
            route.path
        );
        walked += 1;
    }
    assert!(walked > 40, "{walked} endpoints");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_with_a_permission_turns_a_viewer_without_it_away() {
    let node = TestNode::start().await;
    let viewer = node.user("ana", Role::Viewer).await;
    for route in &all_routes() {
        if let Access::Can(permission) = route.access
            && !Role::Viewer.can(permission)
        {
            assert_eq!(status(&viewer, route).await, 403, "{} {}", route.method, route.path);
        }
    }
}
