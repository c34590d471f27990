use super::{tenant_of, text};
use atoll_node::Role;
use atoll_node::identity::user::{PASSWORD_HASH, USER};
use atoll_storage::{Id, Read};
use atoll_tests::{Answer, Client, TestNode};
use serde_json::{Value as Json, json};

const OF_BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS";
const OF_DJANGO: &str = "pbkdf2_sha256$1000$seasalt$DrdiWD40lyBuydnjvZiDrdQMx1S1mOA9O0QYex0R6ww=";
const THEIR_PASSWORD: &str = "correct horse battery";

async fn import(client: &Client, query: &str, csv: &str) -> Answer {
    let headers = [("content-type", "text/csv")];
    client.send("POST", &format!("/api/v1/users/import{query}"), &headers, csv.as_bytes()).await
}

fn hash_of(test: &TestNode, id: &Json) -> String {
    let id = Id::parse(id.as_str().unwrap()).unwrap();
    let user = test.node.store.read(|reader| reader.get(&USER, id)).unwrap().unwrap();
    user.text(&PASSWORD_HASH).to_owned()
}

#[tokio::test]
async fn accounts_of_another_system_sign_in_with_the_passwords_that_they_had() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    admin
        .post("/api/v1/roles", &json!({ "name": "Lead", "permissions": ["tags.write"] }))
        .await
        .expect(201)
        .data();
    let csv = format!(
        "email,username,display_name,role,password,password_hash\n\
         ada@example.org,ada,Ada,editor; Lead,,{OF_BCRYPT}\n\
         bob@example.org,bob,Bob,,,{OF_DJANGO}\n\
         cyd@example.org,,Cyd,moderator,the analytical engine,\n"
    );
    let tried = import(&admin, "?dry_run=true", &csv).await.expect(200).data();
    assert_eq!((&tried["created"], &tried["failed"]), (&json!(3), &json!(0)));
    assert_eq!(admin.get("/api/v1/users").await.json()["page"]["total"], 1);
    let report = import(&admin, "", &csv).await.expect(200).data();
    assert_eq!((&report["created"], &report["failed"]), (&json!(3), &json!(0)), "{report}");
    for (row, name) in ["ada", "bob"].into_iter().enumerate() {
        let id = &report["rows"][row]["id"];
        assert!(!hash_of(&test, id).starts_with("$argon2id$"));
        let wrong = json!({ "login": name, "password": "wrong horse battery" });
        test.stranger().post("/api/v1/auth/login", &wrong).await.refused(401, "wrong_credentials");
        test.stranger().login(name, THEIR_PASSWORD).await;
        let taken_over = hash_of(&test, id);
        assert!(taken_over.starts_with("$argon2id$"), "{taken_over}");
        test.stranger().login(name, THEIR_PASSWORD).await;
        assert_eq!(hash_of(&test, id), taken_over);
    }
    let login = json!({ "login": "cyd", "password": "the analytical engine" });
    let cyd = test.stranger().post("/api/v1/auth/login", &login).await.expect(200).data();
    assert_eq!(cyd["must_change_password"], true);
    let ada = test.stranger().login("ada", THEIR_PASSWORD).await;
    assert_eq!(ada.get("/api/v1/auth/me").await.data()["role"], "editor");
    assert_eq!(
        ada.get("/api/v1/auth/me").await.data()["role_ids"].as_array().map(Vec::len),
        Some(1)
    );
}

#[tokio::test]
async fn a_bad_row_is_told_with_its_reason_and_stops_nothing() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let greedy = OF_BCRYPT.replace("$04$", "$31$");
    let csv = format!(
        "email,username,role,password,password_hash\n\
         good@example.org,good,,,{OF_BCRYPT}\n\
         nobody,x,,short,\n\
         good@example.org,other,,,{OF_BCRYPT}\n\
         admin@example.org,third,,,{OF_BCRYPT}\n\
         dear@example.org,dear,,,{greedy}\n\
         odd@example.org,odd,emperor,,{OF_BCRYPT}\n\
         last@example.org,last,,,{OF_BCRYPT}\n"
    );
    for query in ["?dry_run=true", ""] {
        let report = import(&admin, query, &csv).await.expect(200).data();
        assert_eq!((&report["created"], &report["failed"]), (&json!(2), &json!(5)), "{report}");
        let why = |row: usize| {
            let errors = report["rows"][row - 1]["errors"].as_array().cloned().unwrap_or_default();
            let told = errors.iter().map(|e| format!("{} {}", text(e, "field"), text(e, "code")));
            told.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(why(1), "");
        assert_eq!(why(2), "email not_an_email, username too_short, password too_short");
        assert_eq!(why(3), "email repeated");
        assert_eq!(why(4), " taken");
        assert_eq!(why(5), "password_hash unknown_hash");
        assert_eq!(why(6), "roles.0 unknown_reference");
        assert!(!report.to_string().contains("$2b$"), "{report}");
    }
    // Again: what is there already is told, and nothing is doubled.
    let again = import(&admin, "", &csv).await.expect(200).data();
    assert_eq!((&again["created"], &again["failed"]), (&json!(0), &json!(7)));
    import(&admin, "", "name\nx\n").await.refused(400, "malformed");
    import(&admin, "", "").await.refused(400, "malformed");
    import(&admin, "?dry_run=maybe", &csv).await.expect(400).data();
    let many = format!("email,password\n{}", "a@b.c,a long password\n".repeat(101));
    import(&admin, "", &many).await.refused(422, "invalid");
    let rows = format!("email\n{}", "a@b.c\n".repeat(1_001));
    import(&admin, "", &rows).await.refused(422, "invalid");
    admin.post("/api/v1/users/import", &json!({})).await.refused(415, "unsupported_media_type");
}

#[tokio::test]
async fn nobody_imports_above_himself() {
    let test = TestNode::start().await;
    let boss = test.user("boss", Role::Admin).await;
    let csv = format!("email,role,password_hash\nroot2@example.org,superadmin,{OF_BCRYPT}\n");
    let report = import(&boss, "", &csv).await.expect(200).data();
    assert_eq!(
        (&report["failed"], text(&report["rows"][0]["errors"][0], "code")),
        (&json!(1), "denied")
    );
    let editor = test.user("edi", Role::Editor).await;
    import(&editor, "", &csv).await.refused(403, "denied");
    editor.get("/api/v1/users/export").await.refused(403, "denied");
}

#[tokio::test]
async fn two_nodes_that_take_a_hash_over_apart_write_the_same() {
    let first = TestNode::start().await;
    let csv = format!("email,username,password_hash\nada@example.org,ada,{OF_BCRYPT}\n");
    let report = import(&first.admin().await, "", &csv).await.expect(200).data();
    let second = TestNode::start_beside(&first).await;
    for test in [&first, &second] {
        test.stranger().login("ada", THEIR_PASSWORD).await;
    }
    let id = &report["rows"][0]["id"];
    assert_eq!(hash_of(&first, id), hash_of(&second, id));
    second.take_from(&first);
    first.take_from(&second);
    assert_eq!(first.node.store.read(|reader| reader.conflict_count(None)).unwrap(), 0);
}

#[tokio::test]
async fn accounts_come_out_as_a_table_that_no_spreadsheet_runs() {
    let test = TestNode::start().await;
    let (_, north) = tenant_of(&test, "north", "head").await;
    let (admin, ada) = (test.admin().await, test.user("ada", Role::Viewer).await);
    let evil = json!({ "display_name": "=HYPERLINK(\"https://evil.example\")" });
    ada.put("/api/v1/users/profile", &evil).await.expect(200).data();
    let squeezed = [("accept-encoding", "gzip")];
    for path in ["/api/v1/users/export", "/api/v1/users/me/export"] {
        admin.send("GET", path, &squeezed, b"").await.expect(200);
    }
    let answer = admin.get("/api/v1/users/export").await.expect(200);
    assert!(answer.header("content-type").is_some_and(|v| v.starts_with("text/csv")));
    let csv = answer.text();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(lines[0].starts_with("id,email,username,"), "{csv}");
    assert!(csv.contains("ada@example.org") && csv.contains("'=HYPERLINK"), "{csv}");
    assert!(!csv.contains("argon2") && !csv.contains("head"), "{csv}");
    assert_eq!(north.get("/api/v1/users/export").await.expect(200).text().lines().count(), 2);
}

#[tokio::test]
async fn a_table_that_was_exported_is_imported_again() {
    let (one, two) = (TestNode::start().await, TestNode::start().await);
    let (admin, other) = (one.admin().await, two.admin().await);
    let role = json!({ "name": "Lead", "permissions": ["tags.write"] });
    for client in [&admin, &other] {
        client.post("/api/v1/roles", &role).await.expect(201);
    }
    let csv = format!(
        "email,username,display_name,role,password_hash\nada@example.org,ada,=Ada,editor,{OF_BCRYPT}\n"
    );
    let made = import(&admin, "", &csv).await.expect(200).data();
    let ada = format!("/api/v1/users/{}", text(&made["rows"][0], "id"));
    let roles = json!({ "roles": ["editor", "Lead"] });
    admin.put(&format!("{ada}/roles"), &roles).await.expect(200);
    one.user("bob", Role::Viewer).await;
    let bob = admin.get("/api/v1/users/bob").await.expect(200).data();
    let status = format!("/api/v1/users/{}/status", text(&bob, "id"));
    admin.put(&status, &json!({ "status": "disabled" })).await.expect(200);
    let table = |query: &str| format!("/api/v1/users/export{query}");
    let plain = admin.get(&table("")).await.expect(200).text();
    let whole = admin.get(&table("?include=password_hashes")).await.expect(200).text();
    assert!(!plain.contains("$2b$") && whole.contains(OF_BCRYPT), "{whole}");

    // Here all of it is there already.
    for query in ["?dry_run=true", ""] {
        let report = import(&admin, query, &whole).await.expect(200).data();
        let counts = [&report["created"], &report["unchanged"], &report["failed"]];
        assert_eq!(counts, [&json!(0), &json!(3), &json!(0)], "{report}");
    }
    // What differs is told and changes nothing.
    let changed = whole.replace("=Ada", "Ida");
    let report = import(&admin, "", &changed).await.expect(200).data();
    let told =
        report["rows"].as_array().unwrap().iter().find(|row| row["errors"].is_array()).unwrap();
    assert_eq!(
        (text(&told["errors"][0], "field"), text(&told["errors"][0], "code")),
        ("display_name", "differs")
    );
    assert_eq!(admin.get(&ada).await.expect(200).data()["display_name"], "=Ada");

    // Elsewhere it is made, but for the admin of the same names.
    for (query, dry_run) in [("?dry_run=true", true), ("", false)] {
        let report = import(&other, query, &whole).await.expect(200).data();
        let counts = [&report["created"], &report["unchanged"], &report["failed"]];
        assert_eq!(counts, [&json!(2), &json!(1), &json!(0)], "{report}");
        assert_eq!(
            report["rows"].to_string().contains("\"id\""),
            !dry_run || report["unchanged"] == 1
        );
    }
    let there = other.get("/api/v1/users/ada").await.expect(200).data();
    assert_eq!(
        (text(&there, "display_name"), there["role_ids"].as_array().map(Vec::len)),
        ("=Ada", Some(1))
    );
    assert_eq!(there["created_at"], admin.get(&ada).await.data()["created_at"]);
    two.stranger().login("ada", THEIR_PASSWORD).await;
    let login = json!({ "login": "bob", "password": atoll_tests::harness::PASSWORD });
    two.stranger().post("/api/v1/auth/login", &login).await.refused(401, "account_disabled");

    // Without hashes accounts have no password yet.
    let three = TestNode::start().await;
    let admin = three.admin().await;
    admin.post("/api/v1/roles", &role).await.expect(201);
    let report = import(&admin, "", &plain).await.expect(200).data();
    assert_eq!((&report["created"], &report["failed"]), (&json!(2), &json!(0)), "{report}");
    let login = json!({ "login": "ada", "password": THEIR_PASSWORD });
    three.stranger().post("/api/v1/auth/login", &login).await.refused(401, "wrong_credentials");
    admin.get(&table("?include=secrets")).await.refused(400, "unknown_choice");
    let odd = whole.replace("disabled", "asleep");
    let report = import(&TestNode::start().await.admin().await, "?dry_run=true", &odd)
        .await
        .expect(200)
        .data();
    assert!(report.to_string().contains("unknown_choice"), "{report}");
}
