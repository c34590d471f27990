//! What a tenant is told of itself, in jobs, figures and feeds: never of another.

use super::{make_tenant, theirs};
use atoll_tests::harness::TestNode;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_and_figures_of_another_tenant_are_not_told() {
    let test = TestNode::start().await;
    let (_, boss) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    let made = theirs.head.post("/api/v1/exports", &json!({})).await.expect(202).data();
    let job = made["id"].as_str().unwrap();
    for path in ["jobs", "exports"] {
        let path = format!("/api/v1/{path}/{job}");
        theirs.head.get(&path).await.expect(200).data();
        boss.get(&path).await.refused(404, "not_found");
    }
    boss.get(&format!("/api/v1/exports/{job}/file")).await.refused(404, "not_found");
    boss.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({})).await.refused(404, "not_found");
    assert_eq!(boss.delete(&format!("/api/v1/jobs/{job}")).await.status, 404);
    assert_eq!(boss.get("/api/v1/jobs").await.expect(200).json()["page"]["total"], 0);
    let ours = boss.get("/api/v1/tenants/north/statistics").await.expect(200).data();
    let figures = ["users", "posts", "comments", "likes", "tags", "categories"];
    assert_eq!(figures.map(|name| ours[name].as_u64()), [1, 0, 0, 0, 0, 0].map(Some));
    boss.get(&format!("/api/v1/tenants/{}/statistics", theirs.tenant))
        .await
        .refused(404, "not_found");
    // What was made for one tenant is not handed to another that asks by the same path.
    let feeds = ["/feed.xml", "/atom.xml", "/feed.json", "/sitemap.xml", "/api/v1/posts"];
    for path in feeds {
        let own = theirs.head.get(path).await;
        let answer = boss.get(path).await;
        assert_eq!(own.status, answer.status, "{path}");
        assert_eq!(theirs.leak(&answer.text(), ""), None, "{path}: {}", answer.text());
    }
}
