use super::{other_tenant, text};
use atoll_node::Role;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

async fn published(client: &Client, title: &str) -> Json {
    let post = json!({ "title": title, "body": "text" });
    let post = client.post("/api/v1/posts", &post).await.expect(201).data();
    let path = format!("/api/v1/posts/{}/publish", text(&post, "id"));
    client.post(&path, &json!({})).await.expect(200).data()
}

async fn lead(client: &Client, path: &str, post: &Json) -> Json {
    let redirect = json!({ "path": path, "post_id": post["id"] });
    client.post("/api/v1/redirects", &redirect).await.expect(201).data()
}

#[tokio::test]
async fn an_old_path_leads_to_its_post_while_the_public_sees_it() {
    let test = TestNode::start().await;
    let (admin, stranger) = (test.admin().await, test.stranger());
    let post = published(&admin, "Hello").await;
    let made = lead(&admin, "/2019/05/hello.html/", &post).await;
    assert_eq!(text(&made, "path"), "/2019/05/hello.html");
    for path in ["/2019/05/hello.html", "/2019/05/hello.html/", "/2019/05/hello%2Ehtml?from=feed"] {
        let answer = stranger.get(path).await.expect(301);
        assert_eq!(answer.header("location"), Some("/posts/hello"), "{path}");
    }
    stranger.send("HEAD", "/2019/05/hello.html", &[], b"").await.expect(301).text();
    stranger.send("POST", "/2019/05/hello.html", &[], b"").await.refused(404, "no_such_route");
    stranger.get("/2019/05/other").await.refused(404, "no_such_route");
    stranger.get("/api/v1/nothing").await.refused(404, "no_such_route");

    let id = text(&post, "id");
    admin.post(&format!("/api/v1/posts/{id}/unpublish"), &json!({})).await.expect(200).data();
    stranger.get("/2019/05/hello.html").await.refused(404, "no_such_route");
    let other = published(&admin, "Other").await;
    let again = lead(&admin, "/2019/05/hello.html", &other).await;
    assert_eq!(again["id"], made["id"]);
    assert_eq!(stranger.get("/2019/05/hello.html").await.header("location"), Some("/posts/other"));
    assert_eq!(admin.delete(&format!("/api/v1/redirects/{}", text(&made, "id"))).await.status, 204);
    stranger.get("/2019/05/hello.html").await.refused(404, "no_such_route");
}

#[tokio::test]
async fn a_redirect_is_made_by_who_administers_posts_to_a_post_of_his_tenant() {
    let test = TestNode::start().await;
    let (admin, north) = (test.admin().await, other_tenant(&test).await);
    let post = published(&admin, "Hello").await;
    let redirect = json!({ "path": "/old", "post_id": post["id"] });
    let editor = test.user("eva", Role::Editor).await;
    editor.post("/api/v1/redirects", &redirect).await.refused(403, "denied");
    test.stranger().post("/api/v1/redirects", &redirect).await.refused(401, "unauthenticated");
    north.post("/api/v1/redirects", &redirect).await.refused(422, "invalid");
    for path in ["", "/", "/api/v1/posts", "/%ff"] {
        let redirect = json!({ "path": path, "post_id": post["id"] });
        admin.post("/api/v1/redirects", &redirect).await.refused(422, "invalid");
    }
    let made = lead(&admin, "/old", &post).await;
    let id = text(&made, "id");
    north.delete(&format!("/api/v1/redirects/{id}")).await.refused(404, "not_found");
    test.stranger().in_tenant("north").get("/old").await.refused(404, "no_such_route");
    assert_eq!(north.get("/api/v1/redirects").await.json()["page"]["total"], 0);
    assert_eq!(admin.get("/api/v1/redirects").await.json()["page"]["total"], 1);
}

#[tokio::test]
async fn a_path_that_two_nodes_learn_apart_is_one_redirect() {
    let one = TestNode::start().await;
    let admin = one.admin().await;
    let post = published(&admin, "Hello").await;
    let two = TestNode::start_beside(&one).await;
    let on_two = Client { address: two.address, ..admin.clone() };
    let first = lead(&admin, "/old", &post).await;
    let second = lead(&on_two, "/old/", &post).await;
    assert_eq!(first["id"], second["id"]);
    one.take_from(&two);
    two.take_from(&one);
    for client in [&admin, &on_two] {
        assert_eq!(client.get("/api/v1/redirects").await.json()["page"]["total"], 1);
        assert_eq!(client.get("/old").await.status, 301);
    }
}
