"""gptcli status"""

from __future__ import annotations

from gptcli.options import Place, shared_options


@shared_options(Place)
def status(*, shared: Place) -> None:
    """Show what is done, stale, running, interrupted or missing, the versions, and the disk it takes.

    \b
    Example:
      gptcli status
    """
    from gptcli.artifacts.project import Project
    from gptcli.commands.survey import print_survey, survey
    from gptcli.console import print_json

    found = survey(Project.open(shared.project, shared.recipe))
    if shared.as_json:
        print_json(found)
    else:
        print_survey(found)
