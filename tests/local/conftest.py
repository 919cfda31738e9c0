from tests.local.fixtures import config as config
from tests.local.fixtures import endpoints as endpoints
from tests.local.fixtures import make_release as make_release
from tests.local.fixtures import place as place
from tests.local.fixtures import production as production
from tests.local.fixtures import root as root
