"""Checks on `pipeline_status`, which nothing materializes: what one has found is shown until it looks again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from coin_pipeline.resources import Database


class CheckError(Exception):
    """Checks could not be evaluated; the cause is what became of the first."""


@dataclass(frozen=True)
class Check:
    """A check that needs the database only.

    Attributes:
        spec: what Dagster knows of it.
        evaluate: looks.
    """

    spec: dg.AssetCheckSpec
    evaluate: Callable[[Database], dg.AssetCheckResult]


def check(*, on: Sequence[str], description: str) -> Callable[[Callable[[Database], dg.AssetCheckResult]], Check]:
    """Make a check of a function, by its name.

    Args:
        on: the assets that it looks at.
        description: what is so when it passes.
    """

    def make(evaluate: Callable[[Database], dg.AssetCheckResult]) -> Check:
        spec = dg.AssetCheckSpec(
            evaluate.__name__, asset="pipeline_status", additional_deps=on, description=description
        )
        return Check(spec, evaluate)

    return make


def in_one_step(name: str, checks: Sequence[Check]) -> dg.AssetChecksDefinition:
    """Evaluate checks in a step of this name: one that cannot be evaluated fails it, and stops no other."""

    @dg.multi_asset_check(name=name, specs=[each.spec for each in checks], can_subset=True)
    def evaluate(
        context: dg.AssetCheckExecutionContext, database: dg.ResourceParam[Database]
    ) -> Iterator[dg.AssetCheckResult]:
        errors: dict[str, Exception] = {}
        for each in checks:
            if each.spec.key not in context.selected_asset_check_keys:
                continue
            try:
                result = each.evaluate(database)
            except Exception as error:  # noqa: BLE001 (raised below)
                errors[each.spec.name] = error
            else:
                yield dg.AssetCheckResult(
                    asset_key=each.spec.asset_key,
                    check_name=each.spec.name,
                    passed=result.passed,
                    metadata=result.metadata,
                    severity=result.severity,
                )
        if errors:
            raise CheckError(f"Could not be evaluated: {', '.join(errors)}") from next(iter(errors.values()))

    return evaluate
