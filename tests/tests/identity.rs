//! Accounts, sessions, tokens and tenants over a real socket.

#[path = "identity/refresh.rs"]
mod refresh;
#[path = "identity/tenant.rs"]
mod tenant;

use atoll_node::Role;
use atoll_node::identity::signing_key;
use atoll_storage::Id;
use atoll_tests::harness::{ADMIN_EMAIL, PASSWORD};
use atoll_tests::{Answer, Client, TestNode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

async fn login(client: &Client, name: &str, password: &str) -> Answer {
    client.post("/api/v1/auth/login", &json!({ "login": name, "password": password })).await
}

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("{name} in {json}"))
}

fn ada() -> Json {
    json!({ "email": " Ada@Example.org", "username": "Ada", "password": "the analytical engine", "display_name": "Ada" })
}

#[tokio::test]
async fn somebody_signs_up_signs_in_and_sees_himself() {
    let test = TestNode::start().await;
    let stranger = test.stranger();
    let made = stranger.post("/api/v1/auth/register", &ada()).await.expect(201);
    assert!(made.header("location").is_some_and(|path| path.starts_with("/api/v1/users/")));
    assert!(made.data().get("password_hash").is_none() && made.data().get("email").is_none());
    for name in ["ada", "ADA@example.org", " ada "] {
        let signed_in = login(&stranger, name, "the analytical engine").await.expect(200);
        assert_eq!(signed_in.header("cache-control"), Some("no-store"));
        let client = stranger.with_token(text(&signed_in.data(), "access_token"));
        for path in ["/api/v1/auth/me", "/api/v1/users/profile"] {
            let me = client.get(path).await.expect(200).data();
            assert_eq!(
                (text(&me, "email"), text(&me, "username"), text(&me, "role")),
                ("ada@example.org", "ada", "viewer")
            );
            assert!(me.get("password_hash").is_none());
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_registration_is_named_by_field() {
    let test = TestNode::start().await;
    let bad = json!({ "email": "nobody", "username": "a b", "password": "short" });
    let refused = test.stranger().post("/api/v1/auth/register", &bad).await;
    refused.refused(422, "invalid");
    let fields: Vec<String> = refused.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| text(e, "field").to_owned())
        .collect();
    assert_eq!(fields, ["email", "username", "password"]);
    let role =
        json!({ "email": "a@b.c", "username": "eve", "password": PASSWORD, "role": "superadmin" });
    assert_eq!(test.stranger().post("/api/v1/auth/register", &role).await.status, 422);
    assert_eq!(test.stranger().post("/api/v1/auth/register", &json!([])).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_register_one_name_at_once_one_gets_it() {
    let test = TestNode::start().await;
    let tries = (0..8).map(|_| {
        let client = test.stranger();
        tokio::spawn(async move { client.post("/api/v1/auth/register", &ada()).await })
    });
    let mut statuses = Vec::new();
    for task in tries.collect::<Vec<_>>() {
        let answer = task.await.unwrap();
        if answer.status != 201 {
            answer.refused(409, "taken");
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
}

#[tokio::test]
async fn wrong_passwords_are_answered_alike_and_then_slowed_down() {
    let test = TestNode::start().await;
    let stranger = test.stranger();
    for name in [ADMIN_EMAIL, "nobody@example.org"] {
        for _ in 0..5 {
            login(&stranger, name, "wrong password").await.refused(401, "wrong_credentials");
        }
        let slowed = login(&stranger, name, PASSWORD).await;
        slowed.refused(429, "too_many_requests");
        assert!(
            slowed.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s >= 1))
        );
    }
}

#[tokio::test]
async fn logging_out_ends_the_session_and_no_other() {
    let test = TestNode::start().await;
    let (one, other) = (test.admin().await, test.admin().await);
    assert_eq!(one.post("/api/v1/auth/logout", &json!({})).await.status, 204);
    one.get("/api/v1/auth/me").await.refused(401, "session_ended");
    other.get("/api/v1/auth/me").await.expect(200).data();
}

#[tokio::test]
async fn a_new_password_ends_every_other_session() {
    let test = TestNode::start().await;
    let (one, other) =
        (test.user("ada", Role::Editor).await, test.stranger().login("ada", PASSWORD).await);
    let change = |old: &str, new: &str| json!({ "old_password": old, "new_password": new });
    let path = "/api/v1/users/change-password";
    one.post(path, &change("not it at all", "another password")).await.refused(422, "invalid");
    one.post(path, &change(PASSWORD, "short")).await.refused(422, "invalid");
    assert_eq!(one.post(path, &change(PASSWORD, "another password")).await.status, 204);
    one.get("/api/v1/auth/me").await.expect(200).data();
    other.get("/api/v1/auth/me").await.refused(401, "session_ended");
    login(&test.stranger(), "ada", PASSWORD).await.refused(401, "wrong_credentials");
    test.stranger().login("ada", "another password").await;
}

/// A token's three parts, with header or claims changed.
fn forged(
    token: &str,
    header: impl FnOnce(&mut Json),
    claims: impl FnOnce(&mut Json),
) -> (String, String) {
    let mut parts = token.split('.');
    let mut part = || -> Json {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap()).unwrap()
    };
    let (mut head, mut body) = (part(), part());
    header(&mut head);
    claims(&mut body);
    let signed = [head, body].map(|json| URL_SAFE_NO_PAD.encode(json.to_string())).join(".");
    (signed, parts.next().unwrap().to_owned())
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let test = TestNode::start().await;
    let tokens = login(&test.stranger(), ADMIN_EMAIL, PASSWORD).await.expect(200).data();
    let token = text(&tokens, "access_token");
    let keys = signing_key::jwks(&test.node).unwrap();
    let public = URL_SAFE_NO_PAD.decode(text(&keys["keys"][0], "x")).unwrap();

    let mut bad = Vec::new();
    for alg in ["none", "None", "HS256", "RS256", ""] {
        let (signed, signature) = forged(token, |header| header["alg"] = json!(alg), |_| {});
        bad.push(format!("{signed}.{signature}"));
        bad.push(format!("{signed}."));
        bad.push(signed);
    }
    // HMAC with the public key as its secret.
    let (signed, _) = forged(token, |header| header["alg"] = json!("HS256"), |_| {});
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public);
    let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    bad.push(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref())));
    // Another user, another time, a key that nobody published, one of a foreign node.
    for change in
        [json!({ "sub": Id([7; 16]) }), json!({ "exp": u64::MAX }), json!({ "tid": Id([7; 16]) })]
    {
        let (signed, signature) = forged(
            token,
            |_| {},
            |claims| {
                change
                    .as_object()
                    .unwrap()
                    .iter()
                    .for_each(|(name, value)| claims[name] = value.clone());
            },
        );
        bad.push(format!("{signed}.{signature}"));
    }
    let (signed, signature) = forged(token, |header| header["kid"] = json!(Id([7; 16])), |_| {});
    bad.push(format!("{signed}.{signature}"));
    let foreign = TestNode::start().await;
    let theirs = login(&foreign.stranger(), ADMIN_EMAIL, PASSWORD).await.expect(200).data();
    bad.push(text(&theirs, "access_token").to_owned());
    bad.extend(["x".to_owned(), "a.b.c".to_owned(), "x".repeat(5_000)]);
    bad.push(format!("{token}A"));
    bad.push(token[..token.len() - 4].to_owned());

    for token in &bad {
        let answer = test.stranger().with_token(token).get("/api/v1/auth/me").await;
        answer.refused(401, "token_invalid");
        assert!(answer.header("www-authenticate").is_some());
    }
    test.stranger().with_token(token).get("/api/v1/auth/me").await.expect(200).data();
}

#[tokio::test]
async fn a_viewer_may_not_and_a_stranger_is_asked_to_sign_in() {
    let test = TestNode::start().await;
    let viewer = test.user("ada", Role::Viewer).await;
    let ada = viewer.get("/api/v1/auth/me").await.data();
    let id = text(&ada, "id");
    let role = json!({ "role": "admin" });
    for (client, status, code) in
        [(&viewer, 403, "denied"), (&test.stranger(), 401, "unauthenticated")]
    {
        client.get("/api/v1/users").await.refused(status, code);
        client.get("/api/v1/tenants").await.refused(status, code);
        client.put(&format!("/api/v1/users/{id}/role"), &role).await.refused(status, code);
        client.post("/api/v1/tenants", &json!({})).await.refused(status, code);
    }
    test.stranger().get("/api/v1/auth/me").await.refused(401, "unauthenticated");
    let public = test.stranger().get("/api/v1/users/ada").await.expect(200).data();
    assert!(public.get("email").is_none() && public.get("status").is_none(), "{public}");
    test.stranger().get("/api/v1/users/ada@example.org").await.refused(404, "not_found");
}

#[tokio::test]
async fn a_role_counts_at_once_whatever_the_token_said() {
    let test = TestNode::start().await;
    let (admin, ada) = (test.admin().await, test.user("ada", Role::Viewer).await);
    let id = text(&ada.get("/api/v1/auth/me").await.data(), "id").to_owned();
    ada.get("/api/v1/users").await.refused(403, "denied");
    admin
        .put(&format!("/api/v1/users/{id}/role"), &json!({ "role": "admin" }))
        .await
        .expect(200)
        .data();
    ada.get("/api/v1/users").await.expect(200).data();
    admin
        .put(&format!("/api/v1/users/{id}/status"), &json!({ "status": "disabled" }))
        .await
        .expect(200)
        .data();
    assert_eq!(ada.get("/api/v1/users").await.status, 401);
    login(&test.stranger(), "ada", PASSWORD).await.refused(401, "account_disabled");
}

#[tokio::test]
async fn nobody_raises_above_himself_and_the_last_admin_stays() {
    let test = TestNode::start().await;
    let (root, admin) = (test.admin().await, test.user("ada", Role::Admin).await);
    let ada = text(&admin.get("/api/v1/auth/me").await.data(), "id").to_owned();
    let role = |id: &str| format!("/api/v1/users/{id}/role");
    let to = |role: &str| json!({ "role": role });
    admin.put(&role(&ada), &to("superadmin")).await.refused(403, "denied");
    admin.put(&role(&test.admin.to_string()), &to("viewer")).await.refused(403, "denied");
    admin.put(&role(&ada), &to("emperor")).await.refused(422, "invalid");
    root.put(&role(&test.admin.to_string()), &to("admin")).await.refused(409, "last_admin");
    let disable = json!({ "status": "disabled" });
    root.put(&format!("/api/v1/users/{}/status", test.admin), &disable)
        .await
        .refused(409, "last_admin");
    root.put(&role(&ada), &to("superadmin")).await.expect(200).data();
    root.put(&role(&test.admin.to_string()), &to("admin")).await.expect(200).data();
    root.put(&role(&ada), &to("viewer")).await.refused(403, "denied");
}

#[tokio::test]
async fn users_are_listed_filtered_and_counted() {
    let test = TestNode::start().await;
    for name in ["ada", "bob", "cyd"] {
        test.make_user(test.tenant, name, Role::Editor).await;
    }
    let admin = test.admin().await;
    let page =
        admin.get("/api/v1/users?role=editor&limit=2&sort=username").await.expect(200).json();
    assert_eq!(
        (page["page"]["total"].as_u64(), page["data"].as_array().map(Vec::len)),
        (Some(3), Some(2))
    );
    assert_eq!(text(&page["data"][0], "email"), "ada@example.org");
    let next = text(&page["page"], "next");
    let rest = admin
        .get(&format!("/api/v1/users?role=editor&limit=2&sort=username&cursor={next}"))
        .await
        .json();
    assert_eq!(text(&rest["data"][0], "username"), "cyd");
    let found = admin.get("/api/v1/users?email=bob@example.org").await.expect(200).json();
    assert_eq!(found["page"]["total"], 1);
    assert_eq!(admin.get("/api/v1/users?password_hash=x").await.status, 400);
    assert_eq!(admin.get("/api/v1/users?colour=red").await.status, 400);
}

#[tokio::test]
async fn a_profile_changes_and_keeps_to_its_rules() {
    let test = TestNode::start().await;
    let (ada, _) = (test.user("ada", Role::Viewer).await, test.user("bob", Role::Viewer).await);
    let path = "/api/v1/users/profile";
    let changed =
        ada.put(path, &json!({ "display_name": "Ada Lovelace", "username": "Countess" })).await;
    let changed = changed.expect(200).data();
    assert_eq!(
        (text(&changed, "display_name"), text(&changed, "username")),
        ("Ada Lovelace", "countess")
    );
    ada.put(path, &json!({ "username": "bob" })).await.refused(409, "taken");
    for bad in [
        json!({ "role": "admin" }),
        json!({ "username": null }),
        json!({ "bio": 7 }),
        json!({ "x": 1 }),
    ] {
        ada.put(path, &bad).await.refused(422, "invalid");
    }
    let cleared = ada.put(path, &json!({ "display_name": null })).await.expect(200).data();
    assert!(cleared["display_name"].is_null());
    test.stranger().login("countess", PASSWORD).await;
}

#[tokio::test]
async fn the_networks_keys_are_public_and_verify_a_token() {
    let test = TestNode::start().await;
    let tokens = login(&test.stranger(), ADMIN_EMAIL, PASSWORD).await.expect(200).data();
    let set = test.stranger().get("/.well-known/jwks.json").await.expect(200).json();
    let key = &set["keys"][0];
    assert_eq!((text(key, "kty"), text(key, "crv"), text(key, "alg")), ("OKP", "Ed25519", "EdDSA"));
    let (signed, signature) = text(&tokens, "access_token").rsplit_once('.').unwrap();
    let public = URL_SAFE_NO_PAD.decode(text(key, "x")).unwrap();
    let public =
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public);
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[tokio::test]
async fn the_first_start_happens_once() {
    let test = TestNode::start().await;
    let again = atoll_node::identity::setup(&test.node, "eve@example.org", PASSWORD).await;
    assert_eq!(again.unwrap_err().code(), "already_set_up");
}

#[tokio::test]
async fn a_token_is_good_on_a_node_that_has_not_heard_of_its_session() {
    let first = TestNode::start().await;
    first.admin().await;
    let second = TestNode::start_beside(&first).await;
    let token = first.admin().await.token.unwrap();
    let there = second.stranger().with_token(&token);
    there.get("/api/v1/users").await.expect(200).data();

    // Ended where it was never seen, and later everywhere.
    assert_eq!(there.post("/api/v1/auth/logout", &json!({})).await.status, 204);
    there.get("/api/v1/auth/me").await.refused(401, "session_ended");
    first.stranger().with_token(&token).get("/api/v1/auth/me").await.expect(200).data();
    first.take_from(&second);
    second.take_from(&first);
    for test in [&first, &second] {
        test.stranger()
            .with_token(&token)
            .get("/api/v1/auth/me")
            .await
            .refused(401, "session_ended");
    }
}

#[tokio::test]
async fn a_new_password_ends_sessions_that_its_node_has_not_heard_of() {
    let first = TestNode::start().await;
    let ada = first.user("ada", Role::Viewer).await;
    let second = TestNode::start_beside(&first).await;
    let thief = second.stranger().login("ada", PASSWORD).await;
    let change = json!({ "old_password": PASSWORD, "new_password": "another password" });
    assert_eq!(ada.post("/api/v1/users/change-password", &change).await.status, 204);
    thief.get("/api/v1/auth/me").await.expect(200).data();
    second.take_from(&first);
    first.take_from(&second);
    thief.get("/api/v1/auth/me").await.refused(401, "session_ended");
    ada.get("/api/v1/auth/me").await.expect(200).data();
}

#[tokio::test]
async fn of_two_accounts_made_apart_with_one_address_none_is_lost() {
    let first = TestNode::start().await;
    let second = TestNode::start_beside(&first).await;
    let form =
        |name: &str| json!({ "email": "dup@example.org", "username": name, "password": PASSWORD });
    let path = "/api/v1/auth/register";
    let one = first.stranger().post(path, &form("one")).await.expect(201).data();
    let two = second.stranger().post(path, &form("two")).await.expect(201).data();
    first.take_from(&second);
    second.take_from(&first);
    for test in [&first, &second] {
        let who = async |name: &str| {
            let client = test.stranger().login(name, PASSWORD).await;
            client.get("/api/v1/auth/me").await.expect(200).data()
        };
        assert_eq!(text(&who("dup@example.org").await, "id"), text(&one, "id"));
        let loser = who("two").await;
        assert_eq!(text(&loser, "id"), text(&two, "id"));
        let given = text(&loser, "email");
        assert!(given.starts_with("dup@example.org~"), "{given}");
        assert_eq!(text(&who(given).await, "id"), text(&two, "id"));
    }
}

#[tokio::test]
async fn the_names_of_those_who_run_the_place_are_not_for_whoever_signs_up() {
    let test = TestNode::start().await;
    let form =
        |name: &str| json!({ "email": "eve@example.org", "username": name, "password": PASSWORD });
    let path = "/api/v1/auth/register";
    for name in ["Support", "root", "profile"] {
        let refused = test.stranger().post(path, &form(name)).await;
        refused.refused(422, "invalid");
        assert_eq!(refused.json()["errors"][0]["code"], "reserved", "{name}");
    }
    let eve = test.user("eve", Role::Viewer).await;
    let name = |name: &str| json!({ "username": name });
    eve.put("/api/v1/users/profile", &name("moderator")).await.refused(422, "invalid");
    // Whoever has such a name keeps it, and an administrator gives one.
    let admin = test.admin().await;
    admin.put("/api/v1/users/profile", &name("admin")).await.expect(200).data();
    let id = text(&eve.get("/api/v1/auth/me").await.data(), "id").to_owned();
    admin.put(&format!("/api/v1/users/{id}"), &name("support")).await.expect(200).data();
}

#[tokio::test]
async fn tokens_of_a_node_that_was_cut_off_are_good_nowhere() {
    let first = TestNode::start().await;
    let second = TestNode::start_beside(&first).await;
    let token = second.admin().await.token.unwrap();
    first.take_from(&second);
    let there = first.stranger().with_token(&token);
    there.get("/api/v1/users").await.expect(200).data();
    let gone = second.node.id();
    let withdraw = move |tx: &mut atoll_storage::Tx<'_>| signing_key::withdraw(tx, gone);
    first.node.store.write(withdraw).await.unwrap();
    there.get("/api/v1/users").await.refused(401, "token_invalid");
    first.admin().await.get("/api/v1/users").await.expect(200).data();
}
