//! Objects under a node's name that it did not number so: whoever can write to a bucket may put there what they like.

use super::{Asleep, all_equal, each_visits, in_folder, last, read, until_equal, village};
use atoll_sync::bucket::ObjectName;
use atoll_sync::key::PublicKey;
use std::path::{Path, PathBuf};

/// The greatest number that a name can tell.
const LAST: &str = "ffffffffffff-00000001";

/// Names below the folder, of nodes' objects alone.
fn objects(bucket: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for folder in std::fs::read_dir(bucket).unwrap() {
        let folder = folder.unwrap().path();
        for file in folder.read_dir().into_iter().flatten() {
            let file = file.unwrap().path();
            names.push(file.strip_prefix(bucket).unwrap().to_str().unwrap().to_owned());
        }
    }
    names
}

fn id(node: &Asleep) -> String {
    node.key.parse::<PublicKey>().unwrap().node_id().to_string()
}

/// What the node says it has.
fn want(bucket: &Path, node: &str) -> PathBuf {
    let head = format!("{node}/want-");
    let names = objects(bucket);
    let wants: Vec<&String> = names.iter().filter(|name| name.starts_with(&head)).collect();
    assert_eq!(wants.len(), 1, "{names:?}");
    bucket.join(wants[0])
}

/// One object of each kind, under the name of a node and the last number.
fn put_all(bucket: &Path, node: &str, bytes: &[u8]) {
    let names = ["want-NUMBER", "lacks-NUMBER", "files-NUMBER", "NUMBER-0001-last"];
    for name in names {
        let name = format!("{node}/{}.atoll", name.replace("NUMBER", LAST));
        assert!(ObjectName::parse(&name).is_some(), "{name}");
        std::fs::write(bucket.join(name), bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_with_the_last_number_neither_breaks_order_nor_keeps_a_node_from_writing() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = folder.path();
    let (mut nodes, _) = until_equal(village(2, &in_folder(bucket)).await).await;
    let (first, second) = (id(&nodes[0]), id(&nodes[1]));
    // Of one, what nobody signed; of the other, what it said before, under another name.
    let said = std::fs::read(want(bucket, &second)).unwrap();
    put_all(bucket, &first, b"not a bundle");
    put_all(bucket, &second, &said);
    for (writer, title) in [(0, "Ebb"), (1, "Flood"), (0, "Slack")] {
        let node = nodes.remove(writer).wake().await;
        assert_eq!(node.standing().obstacle, None);
        let is_false = |want: &Path| want.ends_with(format!("want-{LAST}.atoll"));
        // Though it has nothing new to say.
        assert!(writer == 1 || !is_false(&want(bucket, &first)));
        node.post(title, "Written while the other slept.").await;
        let standing = node.visit().await;
        assert_eq!((standing.obstacle, last(&standing).foreign.len()), (None, 0), "{standing:?}");
        let me = if writer == 0 { &first } else { &second };
        assert!(!is_false(&want(bucket, me)));
        nodes.insert(writer, node.sleep().await);
        let node = nodes.remove(1 - writer).wake().await;
        assert_eq!(node.standing().obstacle, None);
        read(&node, &title.to_lowercase()).await;
        nodes.insert(1 - writer, node.sleep().await);
    }
    let (_, roots) = each_visits(each_visits(nodes).await.0).await;
    assert!(all_equal(&roots));
    for name in objects(bucket) {
        assert!(ObjectName::parse(&name).is_some() && !name.contains(LAST), "{name}");
    }
    for node in [&first, &second] {
        want(bucket, node);
    }
}
