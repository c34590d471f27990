//! Late changes of a text, which are taken back as one.

use super::{BODY, KEY, assert_equal, edit, network, node, remove, send, shown};
use atoll_storage::{Changes, late};

/// Two late changes of one text, the second one made without what takes the first one back.
#[test]
fn of_a_text_what_one_node_took_back_another_does_not_do_again() {
    let texts = [
        ("the reef at low tide, in time, spam", "the reef at low tide, in time"),
        ("the reef at low tide, in time, spam, ham", "the reef at low tide, in time, ham"),
        ("the reef", "the reef, spam"),
        ("", "spam"),
    ];
    for (first, second) in texts {
        for is_gone in [false, true] {
            let (mut a, mut b, mut p, _) = network();
            let before = shown(&a);
            remove(&mut a, p.origin().node);
            let mut c = node(4);
            send(&mut a, &mut c);
            edit(&mut p, KEY, Changes::new().body(&BODY, first));
            send(&mut p, &mut b);
            send(&mut b, &mut a);
            edit(&mut p, KEY, Changes::new().body(&BODY, second));
            send(&mut p, &mut b);
            send(&mut b, &mut c);
            // Of the second one, the node that said so may hear too, or never.
            if !is_gone {
                send(&mut b, &mut a);
            }
            send(&mut a, &mut c);
            while c.take_back_before(u64::MAX >> 1, 1).unwrap() {}
            assert_eq!(shown(&c), before, "{first:?} {second:?} {is_gone}");
            send(&mut c, &mut b);
            assert_eq!(shown(&b), before, "{first:?} {second:?} {is_gone}");
            // Who said so is there again, and does at once what it had not heard of.
            send(&mut c, &mut a);
            send(&mut a, &mut b);
            send(&mut a, &mut c);
            assert_eq!((shown(&a), shown(&b)), (before.clone(), before), "{first:?} {second:?}");
            assert_equal(&mut [&mut a, &mut b, &mut c]);
        }
    }
}

/// It heard between two late changes of a text, and so takes the first one for what was there before.
#[test]
fn of_a_text_that_is_clean_again_everybody_is_told() {
    let (mut a, mut b, mut p, _) = network();
    let before = shown(&a);
    remove(&mut a, p.origin().node);
    edit(&mut p, KEY, Changes::new().body(&BODY, "the reef at low tide, in time, spam"));
    send(&mut p, &mut b);
    let mut c = node(4);
    send(&mut b, &mut c);
    // A takes the first one back, of which B does not hear before the second one comes.
    send(&mut a, &mut b);
    send(&mut c, &mut a);
    edit(&mut p, KEY, Changes::new().body(&BODY, "the reef at low tide, in time"));
    send(&mut p, &mut c);
    send(&mut c, &mut b);
    assert_eq!(late::waiting(&b.reader()).unwrap(), 1);
    send(&mut c, &mut a);
    send(&mut a, &mut b);
    assert_eq!(late::waiting(&b.reader()).unwrap(), 0);
    while b.take_back_before(u64::MAX >> 1, 1).unwrap() {}
    assert_eq!((shown(&a), shown(&b)), (before.clone(), before));
    assert_equal(&mut [&mut a, &mut b]);
}
