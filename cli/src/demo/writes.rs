//! What the three nodes write while they are apart: each thing that can clash, once. By the same functions that HTTP
//! calls.

use super::nodes::{Three, actor_of};
use crate::failure::{Failure, Outcome};
use crate::secret;
use atoll_node::community::{comment, like};
use atoll_node::content::workflow::{self, Step};
use atoll_node::content::{category, post};
use atoll_node::identity::{NewUser, user};
use atoll_node::insight::{self, Hit};
use atoll_node::{Actor, Node, Role};
use atoll_storage::Id;
use atoll_storage::tx::Changes;

pub const TWIN_EMAIL: &str = "sam@example.org";
pub const VIEWS: usize = 3 * VISITORS_OF_ONE;
const VISITORS_OF_ONE: usize = 4;
pub const LIKERS: [&str; 3] = ["ada", "boris", "cleo"];

const BEFORE: &str = "# Packing list\n\nFor the trip to the outer islands.\n\n\
                      - water\n- a map\n- rope\n\nAsk at the harbour for the tides.\n";
const OF_FIRST: &str = "# Packing list\n\nFor the trip to the outer islands, three days.\n\n\
                        - water\n- a map\n- rope\n\nAsk at the harbour for the tides.\n";
const OF_SECOND: &str = "# Packing list\n\nFor the trip to the outer islands.\n\n\
                         - water, six litres each\n- a map\n- rope\n- a lamp\n\nAsk at the harbour for the tides.\n";

/// What there is before the links are cut.
pub struct Stage {
    pub shared: Id,
    pub trashed: Id,
    pub tides: Id,
    pub winds: Id,
    pub doomed: Id,
}

pub async fn prepare(three: &Three) -> Outcome<Stage> {
    let (node, admin) = (&three.all[0].node, three.admin()?);
    let shared = publish(node, &admin, "Packing list", BEFORE).await?;
    let trashed = publish(node, &admin, "Old ferry times", "The ferry leaves at nine.\n").await?;
    for name in LIKERS {
        user::create(node, &admin, person(node, name, &format!("{name}@example.org"))).await?;
    }
    Ok(Stage {
        shared,
        trashed,
        tides: place(node, &admin, "Tides").await?,
        winds: place(node, &admin, "Winds").await?,
        doomed: place(node, &admin, "Drafts of old").await?,
    })
}

async fn publish(node: &Node, actor: &Actor, title: &str, body: &str) -> Outcome<Id> {
    let changes = Changes::new().set(&post::TITLE, title).body(&post::BODY, body);
    let made = post::create(node, actor, changes).await?;
    workflow::take(node, actor, made.key, Step::Publish(None), None).await?;
    Ok(made.key)
}

async fn place(node: &Node, actor: &Actor, name: &str) -> Outcome<Id> {
    let made = category::create(node, actor, Changes::new().set(&category::NAME, name)).await?;
    category::approve(node, actor, made.key).await?;
    Ok(made.key)
}

fn person(node: &Node, username: &str, email: &str) -> NewUser {
    NewUser {
        email: email.to_owned(),
        username: username.to_owned(),
        display_name: String::new(),
        password: secret::make(node),
        role: Role::Editor,
        must_change_password: true,
    }
}

/// What was written, in words.
pub async fn apart(three: &Three, stage: &Stage) -> Outcome<Vec<String>> {
    let admin = three.admin()?;
    let nodes: Vec<&Node> = three.all.iter().map(|running| &*running.node).collect();
    let [first, second, third] = nodes.as_slice() else {
        return Err(Failure::failed("there are not three nodes"));
    };
    let [one, two, three_name] = super::nodes::NAMES;

    let write = |text: &str, excerpt: &str| {
        Changes::new().body(&post::BODY, text).set(&post::EXCERPT, excerpt)
    };
    post::edit(first, &admin, stage.shared, write(OF_FIRST, "Three days at sea"), None).await?;
    post::edit(second, &admin, stage.shared, write(OF_SECOND, "What to take along"), None).await?;

    workflow::trash(first, &admin, stage.trashed, None).await?;
    let later = Changes::new().body(&post::BODY, "The ferry leaves at ten from May on.\n");
    post::edit(third, &admin, stage.trashed, later, None).await?;

    category::remove(first, &admin, stage.doomed, None, None).await?;
    let renamed = Changes::new().set(&category::DESCRIPTION, "What was never finished");
    category::edit(second, &admin, stage.doomed, renamed, None).await?;

    let under = |parent: Id| Changes::new().set(&category::PARENT_ID, parent);
    category::edit(second, &admin, stage.tides, under(stage.winds), None).await?;
    category::edit(third, &admin, stage.winds, under(stage.tides), None).await?;

    user::create(first, &admin, person(first, "sam", TWIN_EMAIL)).await?;
    user::create(second, &admin, person(second, "sam", TWIN_EMAIL)).await?;

    for (at, node) in nodes.iter().enumerate() {
        join_in(node, stage.shared, LIKERS[at], super::nodes::NAMES[at]).await?;
        look(node, &admin, stage.shared, at).await?;
    }
    Ok(vec![
        format!("{one} and {two} edit the body and the excerpt of the same post"),
        format!("{one} puts a post into the trash that {three_name} edits"),
        format!("{one} deletes a category that {two} describes"),
        format!("{two} moves a category under another, {three_name} the other under the one"),
        format!("{one} and {two} each make a user with the e-mail {TWIN_EMAIL}"),
        "all three comment, like and view the same post".to_owned(),
    ])
}

/// A comment and a like.
async fn join_in(node: &Node, on: Id, who: &str, place: &str) -> Outcome {
    let actor = actor_of(node, who)?;
    let text = format!("Seen from {place}: do not forget the sun hats.");
    let said = Changes::new().set(&comment::POST_ID, on).set(&comment::TEXT, text);
    comment::create(node, &actor, said).await?;
    like::toggle(node, &actor, like::Target::Post(on)).await?;
    Ok(())
}

/// Views by some people of this node's own, one of whom was seen on every node.
async fn look(node: &Node, actor: &Actor, post: Id, at: usize) -> Outcome {
    let visitor = |number: usize| {
        let address = if number == 0 {
            "192.0.2.1".to_owned()
        } else {
            format!("198.51.100.{}", 10 * at + number)
        };
        insight::visitor(actor.tenant, &address, "a browser")
    };
    let hits = (0..VISITORS_OF_ONE).map(|number| Hit { post, visitor: visitor(number) }).collect();
    insight::track(node, actor, hits).await?;
    Ok(())
}
