//! Who has which part: the same answer in every replica that sees the same members (S12). Pure.

use crate::state::person::lane_number;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Part → member. Shares differ by one at most; among fair ones, each part goes where its hash is highest, so that few
/// parts move when members come and go.
pub(super) fn shares(
    members: &BTreeSet<String>,
    parts: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let mut shares = BTreeMap::new();
    if members.is_empty() {
        return shares;
    }
    let least = parts.len() / members.len();
    // So many members have one more.
    let mut larger = parts.len() % members.len();
    let mut pairs: Vec<_> = members
        .iter()
        .flat_map(|member| parts.iter().map(move |part| (member, part)))
        .collect();
    pairs.sort_by_key(|(member, part)| {
        let weight = lane_number(&format!("{member} {part}"));
        (Reverse(weight), *member, *part)
    });
    let mut has: BTreeMap<&String, usize> = BTreeMap::new();
    for (member, part) in pairs {
        let count = has.entry(member).or_default();
        let room = *count < least || (*count == least && larger > 0);
        if !room || shares.contains_key(part) {
            continue;
        }
        if *count == least {
            larger -= 1;
        }
        *count += 1;
        shares.insert(part.clone(), member.clone());
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(prefix: &str, count: usize) -> BTreeSet<String> {
        (0..count).map(|n| format!("{prefix}{n}")).collect()
    }

    #[test]
    fn every_part_has_one_member_and_shares_differ_by_one_at_most() {
        for parts in [1, 2, 7, 8, 64] {
            for members in 1..20 {
                let shares = shares(&names("replica-", members), &names("p", parts));
                assert_eq!(shares.len(), parts, "{parts} over {members}");
                let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
                shares
                    .values()
                    .for_each(|m| *counts.entry(m).or_default() += 1);
                let most = counts.values().max().copied().unwrap_or(0);
                let least = match counts.len() == members {
                    true => counts.values().min().copied().unwrap_or(0),
                    false => 0,
                };
                assert!(most - least <= 1, "{parts} over {members}: {counts:?}");
            }
        }
        assert!(shares(&names("r", 0), &names("p", 8)).is_empty());
    }

    #[test]
    fn few_parts_move_when_a_member_comes() {
        let parts = names("p", 64);
        let before = shares(&names("replica-", 4), &parts);
        let after = shares(&names("replica-", 5), &parts);
        let moved = before
            .iter()
            .filter(|(part, m)| after[*part] != **m)
            .count();
        // The newcomer's 12 must move; the border between fair shares moves some more.
        assert!(moved <= 32, "{moved} of 64 moved");
    }
}
