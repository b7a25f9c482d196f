"""What was said lately is not said again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.lately import SAY_AGAIN_SECONDS, Lately


class LatelyTests(SynchronousTestCase):
    def test_a_thing_is_news_once_a_minute_however_often_it_happens(self) -> None:
        lately = Lately()
        said = [at for at in range(130) if lately.news("a", float(at))]
        self.assertEqual([0, 60, 120], said)
        self.assertEqual(60.0, SAY_AGAIN_SECONDS)

    def test_things_do_not_hide_each_other(self) -> None:
        lately = Lately()
        self.assertEqual([True, True, False], [lately.news(what, 1.0) for what in ("a", "b", "a")])

    def test_whoever_makes_up_new_things_all_the_time_takes_no_memory(self) -> None:
        lately = Lately()
        self.assertTrue(all(lately.news(number, 0.0) for number in range(5000)))
        self.assertLessEqual(len(lately._said), 1000)
