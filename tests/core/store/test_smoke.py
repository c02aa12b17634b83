import pytest
@pytest.mark.parametrize("n", range(10))
def test_it(store, owner, n):
    assert store.service.list_datasets() == []
