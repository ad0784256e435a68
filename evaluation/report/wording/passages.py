"""Passages that stand in several views as they are."""

COMPUTED_FROM_MEMBERS = (
    "The figures and pictures here are computed from members without noise: ε does not cover them. Do not publish them as "
    "they are where the membership or the examples are secret."
)

ALONE = (
    "Each audited example is attacked by itself: over the shadow models that had it and those that had not, what would an "
    "attacker get who knows everything but this example's membership? It is flagged where an exact rank test says that it "
    "leaks; of those flagged, at most one in twenty is expected to be there by chance. Its own TPR, at 1% FPR, is an estimate "
    'that a few dozen models make large or small by chance; "by chance", dotted, is how often that happens where the same '
    "answers are dealt to models at random."
)
WHERE_EXAMPLES_ARE = (
    "Which examples these are is shown on another page, private/vulnerable.html beside this one. It is no part of this report, "
    "since it holds members' examples as they are and says who was trained on; it is for whoever holds the data."
)
NO_EXAMPLES_KEPT = (
    "Which examples these are is no part of this report, since it says who was trained on; the page private/vulnerable.html "
    "shows them once `dptrain evaluate RUN` has attacked the models again, beside the data."
)
MEMBERS_THEMSELVES = (
    "This page holds examples of the training set as they are, and says which of them leak. No ε covers it. Do not publish it, "
    "do not put it into a repository, and send it to nobody who may not see the data."
)


HOW_NEAR = (
    "Distances are root mean squares, in units of an input or in the embedding of whoever judges. Nearer to private than to "
    "public examples shows the class, and of people the person: means of held-out images do so too. Nearer to members than to "
    "held-out examples, of which there are as many, shows what was trained on. Below, the same of what needs no model."
)

CHOSEN_ON = {
    ("faces", attack): (
        "Its settings were chosen on models of other halves of the same forty people, in which some who are private here were "
        "attacked: for these people it may look a little better than for others."
    )
    for attack in ("inversion.prior", "inversion.scores", "inversion.labels")
}
"""Where settings were chosen with a part of what they are now judged on, by data set and attack."""

WHAT_IT_SAYS = (
    "Made-up secrets, nobody's, and what the model says in their place: the most probable character after each other. A secret "
    "is exposed by as many bits as the model narrows it down among all that it might be. The first ones of each number of "
    "insertions are shown, not the best; those never inserted are controls."
)

FRONT = (
    "A row is shown to be worse than another where that one is shown to be worth more and to give away less, each difference "
    "with its 95% interval, over the seeds that both have. Behind by the means alone: another row's means are better in both, "
    "and the intervals do not settle it. All others are on the front. The strongest attack is that of each row."
)
COMPACT = (
    "Each cell: the figure that says most of members, with its 95% interval; the verdict, defined below; and the most that the "
    "plan permits. Heads of columns sort. Every figure of every attack stands under “Each attack by itself”."
)
