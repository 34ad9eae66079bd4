//! Rules and texts of the game, and the layout in which it is kept.

use super::Def;
use super::game::{Game, Said};
use crate::testing::Bench;
use serde_json::json;
use vumi_core::message::SessionEvent;
use vumi_core::state::sessions::Session;

async fn bench(words: &[&str]) -> Bench {
    Bench::open::<Def>(json!({"hangman": {"words": words}})).await
}

fn board(msg: &str, word: &str, guesses: &str) -> String {
    let prompt = "Enter next guess (0 to quit):";
    format!("{msg}\nWord: {word}\nLetters guessed so far: {guesses}\n{prompt}\n")
}

fn won(msg: &str, word: &str, guesses: &str) -> String {
    let prompt = "Enter anything to start a new game (0 to quit):";
    format!("{msg}\nWord: {word}\nLetters guessed so far: {guesses}\n{prompt}\n")
}

#[tokio::test]
async fn a_game_from_the_first_word_to_the_last() {
    let bench = bench(&["Moo"]).await;
    let says = async |text: &str| bench.says("+27821", text).await;
    assert_eq!(bench.opens("+27821").await, [board("New game!", "___", "")]);
    let hit = "Word contains at least one 'o'! :D";
    assert_eq!(says(" O ").await, [board(hit, "_oo", "o")]);
    let miss = "Word contains no 'a'. :(";
    assert_eq!(says("a").await, [board(miss, "_oo", "ao")]);
    let twice = "You've already guessed 'a'.";
    assert_eq!(says("A").await, [board(twice, "_oo", "ao")]);
    for text in ["", "  ", "\n"] {
        let empty = board("Some input required please.", "_oo", "ao");
        assert_eq!(says(text).await, [empty]);
    }
    for text in ["mo", "00", "a b", "e\u{308}", "İ"] {
        let many = board("Single characters only please.", "_oo", "ao");
        assert_eq!(says(text).await, [many], "{text}");
    }
    for text in ["1", "!", "é", "ж", "😀", "ſ"] {
        let letters = board("Letters of the alphabet only please.", "_oo", "ao");
        assert_eq!(says(text).await, [letters], "{text}");
    }
    // A new session goes on with it, as does a message without content; a closed one ends nothing.
    assert!(bench.closes("+27821").await.is_empty());
    let last = board("Letters of the alphabet only please.", "_oo", "ao");
    assert_eq!(bench.opens("+27821").await, std::slice::from_ref(&last));
    assert_eq!(bench.nothing("27821").await, [last]);
    assert_eq!(says("m").await, [won("Epic victory!", "moo", "amo")]);
    for text in ["", "xy"] {
        let msg = match text {
            "" => "Some input required please.",
            _ => "Single characters only please.",
        };
        assert_eq!(says(text).await, [won(msg, "moo", "amo")]);
    }
    assert_eq!(says("m").await, [board("New game!", "___", "")]);
    assert_eq!(says("0").await, ["Adieu! (end)"]);
    let miss = "Word contains no 'x'. :(";
    assert_eq!(says("x").await, [board(miss, "___", "x")], "another game");
    assert_eq!(bench.says("27822", "0").await, ["Adieu! (end)"]);
}

#[test]
fn how_well_it_was_won() {
    let table = [
        ("", "Flawless victory!"),
        ("x", "Epic victory!"),
        ("xy", "Standard victory!"),
        ("xyz", "Sub-par victory!"),
        ("uvwx", "Sub-par victory!"),
        ("uvwxy", "Random victory!"),
        ("uvwxyz", "Random victory!"),
        ("suvwxyz", "Button mashing!"),
    ];
    for (misses, victory) in table {
        let mut game = Game::new("abba");
        for c in misses.chars().chain(['a', 'b']) {
            assert_eq!(game.guess(&c.to_string(), "next"), Said::Board);
        }
        let first = game.board();
        assert!(
            first.starts_with(&format!("{victory}\n")),
            "{misses}: {first}"
        );
    }
}

#[tokio::test]
async fn every_user_has_a_word_of_their_own_and_a_repeat_the_same() {
    let bench = Bench::open::<Def>(json!({"hangman": {}})).await;
    let mut lengths = std::collections::BTreeSet::new();
    for n in 0..40 {
        // Handled twice, and the same is said: the bench demands it.
        let said = bench.opens(&format!("27{n}")).await.remove(0);
        let word = said.lines().nth(1).unwrap().strip_prefix("Word: ").unwrap();
        assert!(word.chars().all(|c| c == '_') && word.len() >= 4, "{said}");
        lengths.insert(word.len());
    }
    assert!(lengths.len() > 2, "{lengths:?}");
    let words: Vec<&str> = super::WORDS.split_whitespace().collect();
    let good = |word: &&str| word.len() >= 4 && word.bytes().all(|b| b.is_ascii_lowercase());
    assert!(words.len() >= 200 && words.iter().all(good));
}

#[tokio::test]
async fn a_game_of_vumi_goes_on_and_is_kept_as_vumi_keeps_it() {
    let spec = json!({"hangman": {"words": ["zoo"], "workerName": "hangman_worker"}});
    let bench = Bench::open::<Def>(spec).await;
    let (store, scope) = (bench.store(), "hangman_game:ussd:hangman_worker");
    let text = |pairs: &[(&str, &str)]| -> Session {
        let pairs = pairs.iter();
        pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
    };
    let theirs = [
        ("word", "it's"),
        ("guesses", "it"),
        ("msg", "Word contains at least one 't'! :D"),
    ];
    let theirs = store
        .create(scope, "27821", text(&theirs), None)
        .await
        .unwrap();
    let shown = board("Word contains at least one 't'! :D", "it'_", "it");
    assert_eq!(bench.opens("+27821").await, [shown]);
    let held = store.load(scope, "27821").await.unwrap().unwrap();
    assert_eq!(held, theirs);
    let end = won("Flawless victory!", "it's", "ist");
    assert_eq!(bench.says("+27821", "s").await, [end]);
    let mut held = store.load(scope, "27821").await.unwrap().unwrap();
    assert_eq!(held.remove("created_at"), theirs.get("created_at").cloned());
    let expected = [
        ("word", "it's"),
        ("guesses", "ist"),
        ("msg", "Flawless victory!"),
    ];
    assert_eq!(held, text(&expected));
    bench.says("+27821", "0").await;
    assert_eq!(store.load(scope, "27821").await.unwrap(), None);
    // What is no game is none.
    store
        .create(scope, "27822", text(&[("word", "")]), None)
        .await
        .unwrap();
    assert_eq!(bench.opens("27822").await, [board("New game!", "___", "")]);
    let begun = store.load(scope, "27822").await.unwrap().unwrap();
    assert!(begun.contains_key("created_at"));
}

#[tokio::test]
async fn an_older_message_that_comes_again_moves_nothing() {
    let bench = bench(&["moo"]).await;
    let message = |text| bench.message("1", Some(text), Some(SessionEvent::Resume));
    let (first, second) = (message("o"), message("m"));
    let told = bench.hears(&first).await;
    let end = bench.hears(&second).await;
    assert_eq!(end, [won("Flawless victory!", "moo", "mo")]);
    // Anything begins a new game now; not what came before.
    assert_eq!(bench.hears(&first).await, told);
    assert_eq!(bench.hears(&second).await, end);
    assert_eq!(bench.nothing("1").await, end);
}
