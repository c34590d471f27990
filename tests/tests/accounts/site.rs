//! Signing in on the site's own pages: forms and cookies over HTTP, who sees what with them, and how they are refused.

use super::totp::App;
use super::{Hands, Posted};
use atoll_node::{Config, Role};
use atoll_tests::harness::{Answer, Client, PASSWORD, TestNode};
use serde_json::{Value as Json, json};

async fn published(client: &Client, post: Json) -> Json {
    let post = client.post("/api/v1/posts", &post).await.expect(201).data();
    let path = format!("/api/v1/posts/{}/publish", post["id"].as_str().unwrap());
    client.post(&path, &json!({})).await.expect(200).data()
}

async fn read(client: &Client, path: &str, cookies: &str) -> Answer {
    client.send("GET", path, &[("cookie", cookies)], b"").await
}

/// Sends the form of a page with what stands in it.
async fn fill(client: &Client, page: &Answer, action: &str, fields: &[(&str, &str)]) -> Answer {
    let (cookies, secret) = page.form();
    let fields: Vec<_> =
        [("form", secret.as_str())].into_iter().chain(fields.iter().copied()).collect();
    client.send_form(action, &cookies, &fields).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_in_on_the_site_reads_what_is_not_for_everybody() {
    let test = TestNode::start().await;
    let (eve, stranger) = (test.user("eve", Role::Editor).await, test.stranger());
    for name in ["vic", "mod"] {
        let role = if name == "vic" { Role::Viewer } else { Role::Moderator };
        test.make_user(test.tenant, name, role).await;
    }
    published(&eve, json!({ "title": "For all" })).await;
    published(&eve, json!({ "title": "For members", "visibility": "members" })).await;
    let role =
        json!({ "title": "For some", "visibility": "role", "visible_to_roles": ["moderator"] });
    published(&eve, role).await;
    eve.post("/api/v1/posts", &json!({ "title": "A draft" })).await.expect(201);

    let missing = stranger.get("/posts/for-members").await.expect(404);
    assert!(
        missing.text().contains("href=\"/sign-in?return_to=%2Fposts%2Ffor-members\""),
        "{}",
        missing.text()
    );
    let form = stranger.get("/sign-in?return_to=%2Fposts%2Ffor-members").await.expect(200);
    assert_eq!(form.header("cache-control"), Some("no-store"));
    assert!(
        form.text().contains("autocomplete=\"current-password\"")
            && !form.text().contains("<script")
    );
    let fields = [("login", "vic"), ("password", PASSWORD), ("return_to", "/posts/for-members")];
    let entered = fill(&stranger, &form, "/sign-in", &fields).await.expect(303);
    assert_eq!(entered.header("location"), Some("/posts/for-members"));
    let set =
        entered.headers("set-cookie").into_iter().find(|line| line.starts_with("atoll_session="));
    let set = set.expect("a session");
    for part in ["HttpOnly", "SameSite=Lax", "Path=/;", "Max-Age=604800"] {
        assert!(set.contains(part), "{part}: {set}");
    }
    assert!(!set.contains("Secure"), "{set}");
    let vic = entered.cookies();

    let seen = read(&stranger, "/posts/for-members", &vic).await.expect(200);
    assert_eq!(seen.header("cache-control"), Some("private, no-cache"));
    assert!(
        seen.header("vary").is_some_and(|vary| vary.contains("cookie")),
        "{:?}",
        seen.header("vary")
    );
    assert!(
        seen.text().contains("Sign out") && seen.text().contains("For members"),
        "{}",
        seen.text()
    );
    let public = stranger.get("/posts/for-all").await.expect(200);
    assert_eq!(public.header("cache-control"), Some("public, max-age=60"));
    assert!(public.header("vary").is_some_and(|vary| vary.contains("cookie")));
    read(&stranger, "/posts/for-some", &vic).await.expect(404);
    read(&stranger, "/posts/a-draft", &vic).await.expect(404);
    let moderator = stranger.sign_in_on_site("mod", PASSWORD).await;
    read(&stranger, "/posts/for-some", &moderator).await.expect(200);
    let editor = stranger.sign_in_on_site("eve@example.org", PASSWORD).await;
    read(&stranger, "/posts/a-draft", &editor).await.expect(200);

    test.node.feed_search().unwrap();
    for path in ["/", "/authors/eve", "/search?q=for"] {
        let lists = |page: Answer, title: &str| page.text().contains(&format!(">{title}</a>"));
        for (cookies, members, some) in
            [("", false, false), (&*vic, true, false), (&*moderator, true, true)]
        {
            let page = async || read(&stranger, path, cookies).await.expect(200);
            assert!(lists(page().await, "For all"), "{path} {cookies}");
            assert_eq!(lists(page().await, "For members"), members, "{path} {cookies}");
            assert_eq!(lists(page().await, "For some"), some, "{path} {cookies}");
        }
    }
    // Feeds tell everybody the same, and the API knows nobody by a cookie.
    assert!(!read(&stranger, "/feed.xml", &vic).await.expect(200).text().contains("For members"));
    read(&stranger, "/api/v1/posts/for-members", &vic).await.refused(404, "not_found");
    read(&stranger, "/api/v1/auth/me", &vic).await.refused(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browsers_session_ends_when_it_is_left_ended_elsewhere_or_over() {
    let hands = Hands::new();
    let test = TestNode::start_at(hands.clock()).await;
    let (eve, vic) = (test.user("eve", Role::Editor).await, test.user("vic", Role::Viewer).await);
    published(&eve, json!({ "title": "Inside", "visibility": "members" })).await;
    let stranger = test.stranger();
    let opens = async |cookies: &str| read(&stranger, "/posts/inside", cookies).await.status;
    let signed_in = async || stranger.sign_in_on_site("vic", PASSWORD).await;

    let first = signed_in().await;
    let sessions = vic.get("/api/v1/auth/sessions").await.expect(200).data();
    assert_eq!(
        sessions.as_array().map(Vec::len),
        Some(2),
        "it is listed beside the other: {sessions}"
    );
    assert_eq!(opens(&first).await, 200);
    // A form of another site brings no cookie along; one that says that it comes from there is not heard either.
    let elsewhere = [
        ("cookie", first.as_str()),
        ("sec-fetch-site", "cross-site"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    stranger.send("POST", "/sign-out", &elsewhere, b"").await.expect(303);
    assert_eq!(opens(&first).await, 200);
    let left = stranger.send_form("/sign-out", &first, &[]).await.expect(303);
    assert!(left.headers("set-cookie")[0].starts_with("atoll_session=;"), "{left:?}");
    assert_eq!(opens(&first).await, 404);

    let second = signed_in().await;
    let sessions = vic.get("/api/v1/auth/sessions").await.expect(200).data();
    let own = sessions.as_array().unwrap().iter().find(|s| s["current"] != json!(true)).unwrap();
    vic.delete(&format!("/api/v1/auth/sessions/{}", own["id"].as_str().unwrap())).await.expect(204);
    assert_eq!(opens(&second).await, 404);

    let third = signed_in().await;
    hands.turn(1);
    let changed = json!({ "old_password": PASSWORD, "new_password": "another long password" });
    vic.post("/api/v1/users/change-password", &changed).await.expect(204);
    assert_eq!(opens(&third).await, 404);

    hands.turn(1);
    let last = stranger.sign_in_on_site("vic", "another long password").await;
    hands.turn(7 * 24 * 3_600 - 1);
    assert_eq!(opens(&last).await, 200);
    hands.turn(1);
    assert_eq!(opens(&last).await, 404);
    for forged in ["atoll_session=", "atoll_session=x", &format!("{last}A"), "atoll_session=AAAA"] {
        assert_eq!(opens(forged).await, 404, "{forged}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_sign_in_says_why_in_words_and_a_form_from_elsewhere_does_nothing() {
    let test = TestNode::start().await;
    test.make_user(test.tenant, "vic", Role::Viewer).await;
    let stranger = test.stranger();
    let form = stranger.get("/sign-in").await.expect(200);
    let wrong = [("login", "vic\"><script>"), ("password", "not the password")];
    let refused = fill(&stranger, &form, "/sign-in", &wrong).await.expect(422);
    let page = refused.text();
    assert!(
        page.contains("The name or the password is wrong.") && page.contains("role=\"alert\""),
        "{page}"
    );
    assert!(
        page.contains("vic&quot;&gt;&lt;script&gt;") && !page.contains("not the password"),
        "{page}"
    );
    let good = [("login", "vic"), ("password", PASSWORD)];
    let (cookies, secret) = form.form();
    for (cookies, secret) in
        [("", secret.as_str()), (&*cookies, ""), ("atoll_form=x", "x"), (&*cookies, "x")]
    {
        let fields: Vec<_> = [("form", secret)].into_iter().chain(good).collect();
        let refused = stranger.send_form("/sign-in", cookies, &fields).await.expect(403);
        assert!(refused.text().contains("Send it once more"), "{}", refused.text());
        assert!(!refused.cookies().contains("atoll_session"), "{refused:?}");
    }
    stranger.post("/sign-in", &json!({})).await.refused(415, "unsupported_media_type");
    let evil = [("return_to", "https://evil.example/")];
    let fields: Vec<_> = evil.into_iter().chain(good).collect();
    let entered = fill(&stranger, &form, "/sign-in", &fields).await.expect(303);
    assert_eq!(entered.header("location"), Some("/"));
    for _ in 0..5 {
        fill(&stranger, &form, "/sign-in", &[("login", "vic"), ("password", "x")])
            .await
            .expect(422);
    }
    let last = fill(&stranger, &form, "/sign-in", &[("login", "vic"), ("password", "x")]).await;
    assert_eq!(last.status, 429, "{}", last.text());
    assert!(
        last.header("retry-after").is_some() && last.text().contains("Too many tries."),
        "{last:?}"
    );
    // What the dispatcher refuses is told in words, too.
    let headers = [("accept", "text/html"), ("content-type", "application/x-www-form-urlencoded")];
    let long = stranger.send("POST", "/sign-in", &headers, &[b'x'; 10_000]).await.expect(413);
    assert!(long.text().contains("<h1") && long.text().contains("too large"), "{}", long.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_a_second_factor_is_asked_for_its_code_on_a_page_of_its_own() {
    let hands = Hands::new();
    let test = TestNode::start_at(hands.clock()).await;
    let (eve, vic) = (test.user("eve", Role::Editor).await, test.user("vic", Role::Viewer).await);
    published(&eve, json!({ "title": "Inside", "visibility": "members" })).await;
    let (app, codes) = App::of(&vic, hands).await;
    let stranger = test.stranger();
    let to = [("login", "vic"), ("password", PASSWORD), ("return_to", "/posts/inside")];
    let form = stranger.get("/sign-in").await.expect(200);
    let asked = fill(&stranger, &form, "/sign-in", &to).await.expect(303);
    assert_eq!(asked.header("location"), Some("/sign-in/code?return_to=%2Fposts%2Finside"));
    let ticket = asked.cookies();
    assert!(ticket.starts_with("atoll_ticket=") && !ticket.contains("session"), "{ticket}");
    assert_eq!(read(&stranger, "/posts/inside", &ticket).await.status, 404);
    let page =
        read(&stranger, "/sign-in/code?return_to=%2Fposts%2Finside", &ticket).await.expect(200);
    assert!(page.text().contains("one-time-code"), "{}", page.text());
    let (own, secret) = page.form();
    let cookies = format!("{own}; {ticket}");
    let confirm = async |cookies: &str, code: &str| {
        let fields = [("form", secret.as_str()), ("code", code), ("return_to", "/posts/inside")];
        stranger.send_form("/sign-in/code", cookies, &fields).await
    };
    let wrong = confirm(&cookies, &app.wrong()).await.expect(422);
    assert!(wrong.text().contains("This code is wrong"), "{}", wrong.text());
    let empty = confirm(&cookies, "").await.expect(422);
    assert!(empty.text().contains("Type the code"), "{}", empty.text());
    let without = confirm(&own, &codes[0]).await.expect(422);
    assert!(without.text().contains("begin anew"), "{}", without.text());
    let entered = confirm(&cookies, &app.next()).await.expect(303);
    assert_eq!(entered.header("location"), Some("/posts/inside"));
    assert_eq!(read(&stranger, "/posts/inside", &entered.cookies()).await.status, 200);
    // Neither the ticket nor the code is good twice.
    confirm(&cookies, &codes[1]).await.expect(422);
    stranger.get("/sign-in/code").await.expect(303);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_for_encrypted_links_alone_where_the_browser_came_by_one() {
    let https = |config: &mut Config| config.public_url = "https://site.example".to_owned();
    let test = TestNode::start_with(https).await;
    test.make_user(test.tenant, "vic", Role::Viewer).await;
    for (host, is_secure) in [("site.example", true), ("10.0.0.5:8080", false)] {
        let headers = [("host", host)];
        let form = test.stranger().send("GET", "/sign-in", &headers, b"").await.expect(200);
        assert_eq!(form.headers("set-cookie")[0].ends_with("; Secure"), is_secure, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_asked_for_on_a_page_and_a_welcome_leads_to_the_sign_in() {
    let mut posted = Posted::start().await;
    let token = posted.register("ada").await;
    posted.verify(&token).await.expect(204);
    let welcome = posted.office.next_to("ada@example.org").await.text();
    assert!(welcome.contains("https://atoll.example.org/sign-in\n"), "{welcome}");
    let stranger = posted.test.stranger();
    let form = stranger.get("/forgot-password").await.expect(200);
    let said =
        async |email: &str| fill(&stranger, &form, "/forgot-password", &[("email", email)]).await;
    let known = said("ada@example.org").await.expect(200).text();
    assert_eq!(said("nobody@example.org").await.expect(200).text(), known, "it does not tell");
    let letter = posted.office.next_to("ada@example.org").await.text();
    assert!(letter.contains("/reset-password?token="), "{letter}");
    assert!(said("nonsense").await.expect(422).text().contains("no e-mail address"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_pages_at_this_address_says_so() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let new = json!({
        "name": "North <Campus>", "slug": "north",
        "admin": { "email": "n@example.org", "username": "norah", "password": PASSWORD },
    });
    admin.post("/api/v1/tenants", &new).await.expect(201);
    let page = test.stranger().get("/sign-in?tenant=north").await.expect(200).text();
    assert!(page.contains("North &lt;Campus&gt; has no pages at this address"), "{page}");
    assert!(!page.contains("type=\"password\""), "{page}");
    test.stranger().get("/sign-in?tenant=default").await.expect(200).form();
}
